"""Sensitivity of training images to every term of a localization experiment."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim2real.learn.torch_io import to_tensor
from sim2real.perceive.augment import audit_augmentation, chosen
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.render import SceneRenderer, visual_terms

SCENES = 3  # a term may be hidden in one of them
_LEAST = 0.01  # of 255; a smaller mean change is rounding


@dataclass(frozen=True)
class ImageEffect:
    """Effect of one randomization term on training images.

    Attributes:
        term: Its name.
        kind: ``visual`` terms change the scene, ``photometric`` terms the rendered image.
        low: Start of its range.
        high: End of its range.
        change: Mean change of a pixel, 0 to 255, over the range, in the scene that shows it best.
    """

    term: str
    kind: Literal["visual", "photometric"]
    low: float
    high: float
    change: float

    @property
    def dead(self) -> bool:
        """True where the term has a range and changes nothing."""
        return self.low < self.high and self.change < _LEAST


def audit_images(config: LocalizeConfig) -> list[ImageEffect]:
    """Measure every visual and photometric term of an experiment alone, the strongest first.

    Args:
        config: The experiment.

    Raises:
        ConfigError: A term is unknown, or the camera does not say where it stands.
    """
    visual, photometric = visual_terms(config), chosen(config.localizer.augment)
    with closing(SceneRenderer(config)) as renderer:
        scenes = [renderer.effects(number) for number in range(SCENES)]
        images = np.stack([renderer.render(number).rgb for number in range(SCENES)])
    after = audit_augmentation(to_tensor(images), photometric, config.seed)
    effects = [
        ImageEffect(name, "visual", *term.range, max(scene[name] for scene in scenes)) for name, term in visual.items()
    ]
    effects += [ImageEffect(name, "photometric", *term.range, after[name]) for name, term in photometric.items()]
    return sorted(effects, key=lambda effect: -effect.change)
