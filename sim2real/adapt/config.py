"""Configuration of an adaptation: the networks' sizes, the losses' weights, the gate's limits. Presets are YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sim2real.config import read_settings, validate, with_new_names
from sim2real.types import Model

PRESETS = Path(__file__).parent / "presets"


class GeneratorConfig(Model):
    """The network that translates images.

    Attributes:
        kind: ``unet`` (skips at every resolution, best where shapes must stay), ``residual`` (Johnson et al. 2016,
            as CycleGAN and CUT have it).
        width: Channels at full resolution; doubled at every halving, up to four times.
        downs: Halvings of the resolution.
        blocks: Residual blocks at the lowest resolution.
        noise: Channels of noise at the lowest resolution; 0 makes the output a function of the image alone.
        exemplar: Starts from a piece of a random camera image in place of a blank page: the output is that piece plus
            what the network adds. For cameras whose background the simulator knows nothing of. Of the camera's images
            nothing is used but their pixels.
        from_input: Starts from the input: the output is the input plus what the network adds. Keeps objects where
            they are from the first step on.
    """

    kind: Literal["unet", "residual"] = "unet"
    width: int = Field(default=16, ge=4)
    downs: int = Field(default=2, ge=1, le=5)
    blocks: int = Field(default=2, ge=0)
    noise: int = Field(default=0, ge=0)
    exemplar: bool = False
    from_input: bool = False

    @model_validator(mode="after")
    def _one_start(self) -> GeneratorConfig:
        if self.exemplar and self.from_input:
            raise ValueError("a generator starts from an exemplar or from its input, not from both")
        return self


class DiscriminatorConfig(Model):
    """The network that tells domains apart, patch by patch (Isola et al. 2017), at several scales (Wang et al. 2018).

    Attributes:
        width: Channels after the first layer; doubled at every halving, up to eight times.
        layers: Halvings of the resolution; they set the size of a patch.
        scales: Discriminators, each on the image at half the size of the one before. Layers and scales together may
            be as many as leave a pixel of the image: 6 at 32 px, 8 at 128 px.
        spectral_norm: Miyato et al. 2018.
        noise: Standard deviation of noise added to what it sees, at the start; falls linearly to 0.
        minibatch_std: Tells it how much images of a batch differ (Karras et al. 2018), so that a generator that makes
            one background for all is found out.
    """

    width: int = Field(default=32, ge=4)
    layers: int = Field(default=3, ge=1)
    scales: int = Field(default=1, ge=1)
    spectral_norm: bool = True
    noise: float = Field(default=0.0, ge=0)
    minibatch_std: bool = False

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, data: Any) -> Any:
        return with_new_names(data, spread="minibatch_std")


class LossWeights(Model):
    """Weight of each loss of the generator; 0 leaves it out. ``losses.py`` describes them."""

    adversarial: float = Field(default=1.0, ge=0)
    content: float = Field(default=0.0, ge=0)
    identity: float = Field(default=0.0, ge=0)
    task: float = Field(default=0.0, ge=0)
    perception: float = Field(default=0.0, ge=0)
    contrastive: float = Field(default=0.0, ge=0)
    cycle: float = Field(default=0.0, ge=0)
    paired: float = Field(default=0.0, ge=0)


class TaskConfig(Model):
    """The network that must be able to work on adapted images, trained beside the generator.

    Attributes:
        kind: ``classify`` reads ``label`` of every frame, ``segment`` the masks; ``none`` trains none.
        width: Channels after its first layer.
        learning_rate: Adam's, falling to 0 over the run.
        mean_teacher: Weight of agreement with a slow average of itself on target images (Tarvainen et al. 2017;
            French et al. 2018), from ``teacher_starts`` of the run on; 0 leaves it out. No target labels take part.
        confidence: Only what that average is at least this sure of counts (Sohn et al. 2020).
    """

    kind: Literal["none", "classify", "segment"] = "none"
    width: int = Field(default=32, ge=4)
    learning_rate: float = Field(default=1e-3, gt=0)
    mean_teacher: float = Field(default=0.0, ge=0)
    teacher_starts: float = Field(default=0.5, ge=0, lt=1)
    confidence: float = Field(default=0.9, ge=0, lt=1)


class GateConfig(Model):
    """Limits of ``sim2real adapt check``. Lengths are of an image of 128 px and scaled to yours.

    Attributes:
        drift_px: An object may move by this much, median over images; never less than a pixel of your images.
        drift_p95_px: And by this much in the worst twentieth; never less than two pixels of your images.
        mask_iou: Masks found before and after agree at least so much, mean over objects.
        lost: Fraction of images in which an object's edges may not be found again.
        removed, invented: Fraction of objects that may vanish, or of images in which one may appear; both for what the
            detector finds and for what shows without it.
        spilled: Fraction of an object's surroundings that may take on its colour, mean over images.
        task_drop: Loss of the task's score (accuracy or mean IoU) on adapted, held-out images.
        detector_steps: Training steps of the detector that the gate looks with.
    """

    drift_px: float = Field(default=1.5, gt=0)
    drift_p95_px: float = Field(default=4.0, gt=0)
    mask_iou: float = Field(default=0.7, gt=0, le=1)
    lost: float = Field(default=0.05, ge=0, le=1)
    removed: float = Field(default=0.03, ge=0, le=1)
    invented: float = Field(default=0.03, ge=0, le=1)
    spilled: float = Field(default=0.05, ge=0, le=1)
    task_drop: float = Field(default=0.05, ge=0, le=1)
    detector_steps: int = Field(default=400, ge=1)


class AdaptConfig(Model):
    """One training of a generator.

    Attributes:
        image_size: Shorter side of the images the networks see, px; 0 keeps that of the first rendered image. Both
            sides become multiples of 32, and all images, real ones too, are scaled to cover that size and cut to it.
        steps: Optimizer steps.
        batch_size: Images of each domain a step.
        learning_rate, discriminator_learning_rate: Adam's, constant for half the run, then falling to 0.
        average: Decay of the exponential average of the generator's weights, which is what is exported.
        pool: Adapted images kept for the discriminator (Shrivastava et al. 2017); 0 shows it only the newest.
        bf16: Networks compute in bfloat16, weights stay in float32; by default where the processor has AVX512-BF16 and
            gains by it.
        augment: Both domains are mirrored and shifted at random before a discriminator sees them, the same way for
            generated and real images (Zhao et al. 2020), so that a few images do not get learned by heart.
        check_every: Steps between checkpoints, figures, sample grids and gates.
        threads: Of torch; 0 leaves it alone.
    """

    name: str
    image_size: int = Field(default=128, ge=0)
    steps: int = Field(default=6000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    discriminator_learning_rate: float = Field(default=2e-4, gt=0)
    average: float = Field(default=0.995, ge=0, lt=1)
    pool: int = Field(default=50, ge=0)
    bf16: bool | None = None
    augment: bool = False
    check_every: int = Field(default=500, ge=1)
    seed: int = 0
    threads: int = Field(default=0, ge=0)
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    weights: LossWeights = LossWeights()
    task: TaskConfig = TaskConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _losses_have_networks(self) -> AdaptConfig:
        if self.weights.task and self.task.kind == "none":
            raise ValueError("'weights.task' needs 'task.kind': classify or segment")
        return self

    @property
    def towards(self) -> Literal["camera", "canonical"]:
        """Domain that the generator's output looks like.

        One of the camera, to train on; or, learned from pairs, a canonical one (James et al. 2019), so that it may run
        on the robot in front of a perception network.
        """
        return "canonical" if self.weights.paired else "camera"


def load_preset(path: Path | str, overrides: Sequence[str] = ()) -> AdaptConfig:
    """Read a configuration of an adaptation.

    Args:
        path: A YAML file, or a preset's name (``pixelda``).
        overrides: ``key=value`` with dots for nesting and YAML values: ``generator.width=32``.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or value is wrong; it says which and suggests.
    """
    return validate(AdaptConfig, *read_settings(path, overrides, PRESETS))
