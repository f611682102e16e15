"""Configuration of a localization experiment."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sim2real.config import with_new_names
from sim2real.types import Model


class ObjectConfig(Model):
    """The object that is looked for: what it is told by, and where it may lie.

    Attributes:
        kind: Its shape.
        radius_m: Smallest and largest; drawn anew for every image.
        height_m: Of its top above the table.
        hue: From and to, in turns around the colour circle; may begin below 0. No distractor is of the object's kind
            and of these hues. None: of any colour, told by its shape alone.
        distance_m: Nearest and farthest from the base's axis.
        azimuth_rad: At most this far to either side of the base's x axis.
    """

    kind: Literal["box", "cylinder", "ball"] = "cylinder"
    radius_m: tuple[float, float] = (0.022, 0.038)
    height_m: float = Field(default=0.04, gt=0)
    hue: tuple[float, float] | None = (-0.04, 0.04)
    distance_m: tuple[float, float] = (0.19, 0.41)
    azimuth_rad: float = Field(default=0.95, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> ObjectConfig:
        for name in ("radius_m", "distance_m", "hue"):
            pair = getattr(self, name)
            if pair is not None and not pair[0] <= pair[1]:
                raise ValueError(f"'{name}' is {pair}; it goes from low to high")
        return self


class RenderConfig(Model):
    """Training images.

    Attributes:
        images: Of which the last ``held_out`` are never trained on.
        camera: Calibration with ``T_base_camera`` to look through; the robot's own by default.
        textures: How many there are.
        photographs: Folder of photographs to cut half of them from.
        randomize: ``all`` of the visual terms, or a list of their names.
        without: Names of terms that take no part all the same.
        appearance: Terms that replace those of the same name, as ``sim/render/appearance.yaml`` has them.
        near_gripper: Fraction of images in which the object lies beside the gripper.
        workers: Processes.
    """

    images: int = Field(default=24000, ge=2)
    held_out: int = Field(default=1500, ge=1)
    camera: Path | None = None
    textures: int = Field(default=200, ge=1)
    photographs: Path | None = None
    randomize: Literal["all"] | tuple[str, ...] = "all"
    without: tuple[str, ...] = ()
    appearance: dict[str, dict[str, Any]] = Field(default_factory=dict)
    near_gripper: float = Field(default=0.35, ge=0, le=1)
    workers: int = Field(default=2, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, data: Any) -> Any:
        return with_new_names(data, looks="appearance")

    @model_validator(mode="after")
    def _some_left(self) -> RenderConfig:
        if self.held_out >= self.images:
            raise ValueError(f"'held_out' ({self.held_out}) leaves none of the {self.images} images to train on")
        return self


class LocalizerConfig(Model):
    """Network and training.

    Attributes:
        width: Filters of the first layer; the others are multiples of it.
        epochs, batch_size, learning_rate: Of AdamW with one cosine of the learning rate.
        weight_decay: Of AdamW.
        augment: ``all`` of the photometric terms, or a list of their names.
        precision: ``bf16`` runs convolutions in bfloat16.
        save_every: Epochs between checkpoints.
    """

    width: int = Field(default=16, ge=4)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    augment: Literal["all"] | tuple[str, ...] = "all"
    precision: Literal["fp32", "bf16"] = "bf16"
    save_every: int = Field(default=1, ge=1)


class TeacherConfig(Model):
    """Mean teacher: learning from real images without labels, which the network's slow average labels.

    Attributes:
        weight: Of agreement with it; 0 leaves it out.
        starts: Fraction of the run after which it is listened to.
        fraction: Real images a step, as a fraction of ``batch_size``.
        confidence: An image counts where the average has at least this fraction of its map at one position.
        average: Decay of the average, a step.
        shift_px: The average and the network see an image shifted by up to this much.
    """

    weight: float = Field(default=1.0, ge=0)
    starts: float = Field(default=0.3, ge=0, lt=1)
    fraction: float = Field(default=0.5, gt=0, le=4)
    confidence: float = Field(default=0.5, ge=0, lt=1)
    average: float = Field(default=0.99, ge=0, lt=1)
    shift_px: int = Field(default=6, ge=0, le=32)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, data: Any) -> Any:
        return with_new_names(data, share="fraction")


class LocalizeConfig(Model):
    """One localization experiment (Tobin et al. 2017): trained on randomized renders, unless it says otherwise.

    Attributes:
        task: ``{name: localize}``.
        object: What is looked for.
        render: The images.
        adapted: Run of ``sim2real adapt`` whose generator the rendered images go through.
        unadapted: Fraction of them that stays as rendered (Bousmalis et al. 2018 train on both).
        labelled: Dataset of real images that say where the object is (``object_pos``), trained on beside the renders.
        labelled_fraction: Fraction of every batch that comes from there; with 1 the renders only set how many steps
            there are, and what the network is calibrated on.
        unlabelled: Dataset or folder of real images that nobody has labelled, trained on beside the renders: of the
            camera that will be used, without its lens distortion, with the object in nearly all of them.
        teacher: How ``unlabelled`` is learned from.
        localizer: Network and training.
    """

    name: str
    robot: str
    task: dict[str, Any]
    object: ObjectConfig = ObjectConfig()
    render: RenderConfig = RenderConfig()
    adapted: Path | None = None
    unadapted: float = Field(default=0.25, ge=0, lt=1)
    labelled: Path | None = None
    labelled_fraction: float = Field(default=0.5, gt=0, le=1)
    unlabelled: Path | None = None
    teacher: TeacherConfig = TeacherConfig()
    localizer: LocalizerConfig = LocalizerConfig()
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, data: Any) -> Any:
        return with_new_names(data, labelled_share="labelled_fraction")

    @field_validator("task")
    @classmethod
    def _is_localize(cls, task: dict[str, Any]) -> dict[str, Any]:
        if task != {"name": "localize"}:
            raise ValueError("a localization experiment has 'task: {name: localize}' and no other settings there")
        return task


def area_of(target: ObjectConfig) -> tuple[float, float, float, float]:
    """X from and to, y from and to, m, of where the object may lie."""
    near, far = target.distance_m
    side = math.sin(min(target.azimuth_rad, math.pi / 2))
    return near * min(math.cos(target.azimuth_rad), 1.0), far, -far * side, far * side
