"""From a localization configuration to a perception bundle: render, train, measure, export."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import gaussian_nll_loss
from torch.utils.tensorboard import SummaryWriter

from sim2real.config import prepare_run
from sim2real.errors import ConfigError, SimulationError
from sim2real.files import write_text
from sim2real.images.dataset import digest, read_dataset
from sim2real.images.lens import project
from sim2real.images.pictures import contact_sheet
from sim2real.learn.torch_io import save_state, to_tensor
from sim2real.perceive.adapt import adapt_dataset
from sim2real.perceive.augment import Augmentation, chosen
from sim2real.perceive.config import LocalizeConfig, ObjectConfig
from sim2real.perceive.export import export_localizer
from sim2real.perceive.network import Localizer
from sim2real.perceive.render import looking_through, render_dataset
from sim2real.perceive.teacher import Lesson, Teacher, load_unlabelled
from sim2real.provenance import provenance
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.perception import PerceptionSpec, table_homography, write_perception_bundle
from sim2real.runtime.translation import Translator, file_hashes
from sim2real.types import Array, Image, Progress

log = logging.getLogger(__name__)


GOLDEN_IMAGES = 8
PACKAGES = ("torch", "kornia", "pybullet", "numpy", "onnxruntime")
_SHEET = 48
_LEAST_BELIEVED = 0.2  # share of photographs without labels in which a teacher finds the object for sure
_WATCHED = 500  # held-out images looked at after every epoch


@dataclass(frozen=True)
class Labelled:
    """Images with where the object is in them.

    Attributes:
        images: [N, H, W, 3].
        place: [N, 2] m in the base frame.
        pixels: Columns and rows of the object [N, 2].
    """

    images: Image
    place: Array
    pixels: Array

    def rows(self, index: slice | NDArray[np.int64]) -> Labelled:
        """Some of them."""
        return Labelled(self.images[index], self.place[index], self.pixels[index])

    def with_rows_of(self, other: Labelled) -> Labelled:
        """These and then the others."""
        return Labelled(
            np.concatenate((self.images, other.images)),
            np.concatenate((self.place, other.place)),
            np.concatenate((self.pixels, other.pixels)),
        )


def train(config: LocalizeConfig, run_dir: Path, on_progress: Progress) -> Path | None:
    """Train the configured localizer and export it; continues an earlier run of the same configuration.

    Args:
        config: The experiment.
        run_dir: Folder of the run: configuration, images (as rendered, and adapted), contact sheet, checkpoint,
            TensorBoard events, history, bundle.
        on_progress: Called while it renders, and after every epoch.

    Returns:
        The bundle's path, or None when Ctrl-C ended it early (what is done is kept).

    Raises:
        ConfigError: The folder holds a run of another configuration or one that has learned from other images,
            ``adapted`` is no finished adaptation, ``labelled`` no labelled dataset of the camera's images, or
            ``unlabelled`` holds too few images, or renders.
        AdaptationError: The gate refused the adaptation, or it is for images of another size.
        SimulationError: Training diverged.
    """
    prepare_run(config, run_dir)
    camera = looking_through(config)
    if config.adapted is not None:  # what is wrong with it is said at once, not after hours of drawing
        Translator(config.adapted).need_size(camera.height, camera.width)
    labelled = None if config.labelled is None else load_photographs(config.labelled, config, camera)
    unlabelled = None if config.unlabelled is None else load_unlabelled(config.unlabelled, camera.height, camera.width)
    count, folder = config.render.images, run_dir / "images"
    if render_dataset(config, folder, count, on_progress) < count:
        return None
    everything = load_labelled(folder, count)
    if unlabelled is not None:
        _check_unlabelled(unlabelled, everything.images, config.unlabelled)
    if config.adapted is not None:
        rendered, folder = folder, run_dir / "adapted"
        if adapt_dataset(config.adapted, rendered, folder, count, config.unadapted, on_progress) < count:
            return None
        everything = load_labelled(folder, count)
    _write_sheet(run_dir / "contact_sheet.png", everything.images[:_SHEET])
    trained_on, held_out = (
        everything.rows(slice(0, -config.render.held_out)),
        everything.rows(slice(-config.render.held_out, None)),
    )
    origins = {} if config.adapted is None else {f"adapted: {k}": v for k, v in file_hashes(config.adapted).items()}
    for name, images in (("labelled", None if labelled is None else labelled.images), ("unlabelled", unlabelled)):
        if images is not None:
            origins[name] = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    trainer = Trainer(config, run_dir, camera, origins, unlabelled)
    trainer.load()
    if not trainer.train(trained_on, held_out, on_progress, labelled):
        return None
    believed = trainer.history[-1].get("photographs_believed", 1.0)
    if believed < _LEAST_BELIEVED:
        log.warning(
            "the object was found for sure in %.0f %% of the photographs of %s only, and the others taught nothing: is "
            "it in them, as this camera sees it, and was training long enough?", 100.0 * believed, config.unlabelled,
        )  # fmt: skip
    factor, figures = calibrate(trainer.network, held_out, config.seed)
    trainer.network.std_factor = factor
    write_text(run_dir / "history.json", json.dumps({"epochs": trainer.history, "held_out": figures}, indent=1))
    golden = held_out.images[:GOLDEN_IMAGES]
    bundle = write_perception_bundle(
        run_dir / "bundle",
        spec_of(config, trainer.camera),
        provenance(config, PACKAGES, {"held_out_renders": figures, "learned_from": origins}),
        export_localizer(trainer.network, golden),
        golden,
        replace=True,
    )
    return bundle


def load_labelled(folder: Path, count: int | None = None) -> Labelled:
    """A rendered dataset, or its first ``count`` images.

    Raises:
        ConfigError: Labels are missing.
    """
    data = read_dataset(folder)
    rows = slice(0, count)
    return Labelled(data.images[rows], data.column("object_pos")[rows, :2], data.column("object_pixel")[rows])


def load_photographs(folder: Path, config: LocalizeConfig, camera: CameraCalibration) -> Labelled:
    """Photographs with places: where each object is seen follows from the camera.

    Args:
        folder: Dataset of images of the camera's size; ``object_pos`` of every frame m in the base frame, and where it
            is known ``T_base_camera`` of that very image.
        config: The experiment.
        camera: Where frames do not say.

    Raises:
        ConfigError: Places are missing, or images are of another size.
    """
    data = read_dataset(folder)
    if data.images.shape[1:3] != (camera.height, camera.width):
        raise ConfigError(
            f"{folder} holds images of {data.images.shape[2]} x {data.images.shape[1]}, the experiment's camera makes "
            f"{camera.width} x {camera.height}"
        )
    place = data.column("object_pos")
    known = "T_base_camera" in data.frames[0]
    poses = data.column("T_base_camera") if known else np.tile(camera.T_base_camera, (len(place), 1, 1))  # type: ignore[arg-type]
    pixels = [project(camera, where[None], np.linalg.inv(pose))[0] for where, pose in zip(place, poses, strict=True)]
    return Labelled(data.images, place[:, :2], np.array(pixels))


def _check_unlabelled(unlabelled: Image, rendered: Image, folder: Path | None) -> None:
    """Refuse renders that are given as photographs."""
    shared = len({digest(image) for image in unlabelled} & {digest(image) for image in rendered})
    if shared:
        raise ConfigError(
            f"{shared} images of {folder} (unlabelled) are among the renders, which are no photographs; give images of "
            "the real camera"
        )


def spec_of(config: LocalizeConfig, camera: CameraCalibration) -> PerceptionSpec:
    """What the experiment's network sees and says."""
    assert camera.T_base_camera is not None
    thing = config.object
    colour = "any colour" if thing.hue is None else f"hue {thing.hue[0]:g} to {thing.hue[1]:g}"
    radius = " to ".join(f"{1000 * r:g}" for r in thing.radius_m)
    return PerceptionSpec(
        robot=config.robot,
        object=f"{thing.kind}, radius {radius} mm, height {1000 * thing.height_m:g} mm, {colour}",
        width=camera.width,
        height=camera.height,
        matrix=tuple(tuple(row) for row in camera.matrix.tolist()),
        T_base_camera=tuple(tuple(row) for row in camera.T_base_camera.tolist()),
        height_m=0.5 * thing.height_m,
        area=area_of(thing),
    )


def area_of(thing: ObjectConfig) -> tuple[float, float, float, float]:
    """X from and to, y from and to, m, of where the object may lie."""
    near, far = thing.distance_m
    side = math.sin(min(thing.azimuth_rad, math.pi / 2))
    return near * min(math.cos(thing.azimuth_rad), 1.0), far, -far * side, far * side


class Trainer:
    """Trains one localizer; the same seed gives the same batches.

    Args:
        config: The experiment.
        run_dir: Where checkpoints and events go.
        camera: The network's.
        origins: Hashes of what it learns from beside the renders: the generator, photographs.
        unlabelled: Photographs [N, H, W, 3] that a teacher labels.

    Attributes:
        network: The localizer.
        teacher: Labels photographs that nobody has labelled, where there are any.
        history: Figures of every epoch.
    """

    def __init__(
        self,
        config: LocalizeConfig,
        run_dir: Path,
        camera: CameraCalibration,
        origins: Mapping[str, str] = MappingProxyType({}),
        unlabelled: Image | None = None,
    ) -> None:
        self.config, self.run_dir, self.camera, self.origins = config, run_dir, camera, dict(origins)
        settings = config.localizer
        torch.manual_seed(config.seed)
        homography = torch.as_tensor(table_homography(camera, 0.5 * config.object.height_m))
        self.network = Localizer(homography, settings.width, (camera.height, camera.width), area_of(config.object)).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.teacher = None if unlabelled is None else Teacher(self.network, config.teacher, unlabelled)
        self.history: list[dict[str, float]] = []

    def train(
        self, data: Labelled, held_out: Labelled, on_progress: Progress, labelled: Labelled | None = None
    ) -> bool:
        """Train to the end.

        Args:
            data: Rendered images, in the order they are drawn from.
            held_out: Rendered images, looked at after every epoch.
            on_progress: Called after every epoch.
            labelled: Make up ``labelled_share`` of every batch.

        Returns:
            True when finished; False when Ctrl-C came, after which the last checkpoint is whole.
        """
        epochs = self.config.localizer.epochs
        # What is nearly nothing in a peaked map takes a processor a hundred times longer.
        torch.set_flush_denormal(True)
        try:
            with SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=len(self.history)) as writer:
                while len(self.history) < epochs:
                    figures = self._epoch(data, labelled, len(self.history))
                    figures |= {
                        f"held_out_{k}": v
                        for k, v in measure(self.network, held_out.rows(slice(0, _WATCHED)), self.config.seed).items()
                    }
                    self.history.append(figures)
                    for name, value in figures.items():
                        writer.add_scalar(name, value, len(self.history))
                    if len(self.history) % self.config.localizer.save_every == 0:
                        self.save()
                    on_progress("training", len(self.history), epochs, figures)
        except KeyboardInterrupt:
            return False
        self.save()
        return True

    def _epoch(self, data: Labelled, labelled: Labelled | None, epoch: int) -> dict[str, float]:
        settings, seed = self.config.localizer, self.config.seed
        began = time.perf_counter()
        order = np.random.default_rng([seed, 31, epoch]).permutation(len(data.images))
        augment = Augmentation(chosen(settings.augment), seed * 1000 + epoch)
        teaching = (
            np.random.default_rng([seed, 33, epoch]),
            Augmentation(chosen(settings.augment), seed * 1000 + epoch + 500),
        )
        steps = len(order) // settings.batch_size or 1
        self.network.train()
        figures: list[dict[str, float]] = []
        for step in range(steps):
            batch = data.rows(np.sort(order[step * settings.batch_size : (step + 1) * settings.batch_size]))
            if labelled is not None:
                batch = self._mixed(batch, labelled, (epoch, step))
            done = (epoch + step / steps) / settings.epochs
            self._anneal(done)
            lesson = self.teacher.lesson(settings.batch_size, done, *teaching) if self.teacher else None
            figures.append(self._step(augment(to_tensor(batch.images)), batch, lesson))
            if not all(map(math.isfinite, figures[-1].values())):
                raise SimulationError(
                    f"training diverged in epoch {epoch + 1}; lower localizer.learning_rate and run again: it goes on "
                    "from the last checkpoint"
                )
            if self.teacher:
                self.teacher.follow(self.network, epoch * steps + step)
        means = {name: float(np.mean([step[name] for step in figures if name in step])) for name in figures[-1]}
        return {**means, "images_per_s": steps * settings.batch_size / (time.perf_counter() - began)}

    def _step(self, images: torch.Tensor, batch: Labelled, lesson: Lesson | None) -> dict[str, float]:
        """One step on a batch, whose images are already augmented, and on what the teacher says."""
        network, count = self.network, len(images)
        place = torch.as_tensor(batch.place, dtype=torch.float32)
        pixels = torch.as_tensor(batch.pixels, dtype=torch.float32)
        if lesson is not None:
            images = torch.cat((images, lesson.images))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.localizer.precision == "bf16"):
            found, std, heat = network(images.contiguous(memory_format=torch.channels_last))
        # What is learned is the pixel. A place that learned to be right in spite of a moved camera would learn from how
        # the robot looks, and be wrong where it looks otherwise.
        likelihood = gaussian_nll_loss(found[:count].detach(), place, std[:count].square())
        finding = pixel_loss(heat[:count], pixels, network.rows, network.columns).mean()
        loss = likelihood + finding
        figures = {
            "likelihood": float(likelihood.detach()),
            "finding": float(finding.detach()),
            "error_m": float((found[:count].detach() - place).norm(dim=1).mean()),
        }
        if lesson is not None:
            apart = pixel_loss(heat[count:], lesson.pixels, network.rows, network.columns)
            agreement = (apart * lesson.sure).mean()
            loss = loss + lesson.weight * agreement
            figures |= {"agreement": float(agreement.detach()), "photographs_believed": float(lesson.sure.mean())}
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self._optimizer.step()
        return figures

    def _mixed(self, batch: Labelled, labelled: Labelled, at: tuple[int, int]) -> Labelled:
        """A batch in which photographs take the places of some renders."""
        count = min(max(round(self.config.labelled_share * len(batch.images)), 1), len(batch.images))
        rng = np.random.default_rng([self.config.seed, 32, *at])
        rows = rng.choice(len(labelled.images), count, replace=count > len(labelled.images))
        kept = rng.permutation(len(batch.images))[count:]
        return batch.rows(kept).with_rows_of(labelled.rows(rows))

    def _anneal(self, done: float) -> None:
        """One cosine from the learning rate to nothing, after a short warm-up."""
        rate = 0.5 * (1.0 + math.cos(math.pi * done)) * min(1.0, done * 30.0 + 0.05)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.localizer.learning_rate * rate

    def save(self) -> None:
        """Write ``checkpoint.pt`` at once."""
        state = {
            "network": self.network.state_dict(), "optimizer": self._optimizer.state_dict(), "history": self.history,
            "origins": self.origins,
        }  # fmt: skip
        if self.teacher:
            state["teacher"] = self.teacher.average.state_dict()
        save_state(state, self.run_dir / "checkpoint.pt")

    def load(self) -> bool:
        """Continue from ``checkpoint.pt`` if there is one.

        Raises:
            ConfigError: It has learned from other images.
        """
        path = self.run_dir / "checkpoint.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        if "origins" not in state and (state.get("generator") or self.origins):
            raise ConfigError(
                f"{path} is of a version that did not note the images it learned from; train into another folder with "
                "--run"
            )
        before = state.get("origins", {})
        other = [name for name in sorted({*before, *self.origins}) if before.get(name) != self.origins.get(name)]
        if other:
            raise ConfigError(
                f"{path} has learned from other images than there are now ({', '.join(other)}); train into another "
                "folder with --run"
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.teacher:
            self.teacher.average.load_state_dict(state["teacher"])
        self.history = state["history"]
        return True


def pixel_loss(heat: torch.Tensor, pixel: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Cross-entropy [N] of a map's log-probabilities [N, rows × columns] to the object's pixel [N, 2].

    The target is spread over the four nearest cells so that its mean is the pixel itself.
    """
    at = (pixel - 1.5) / 4.0
    at = torch.stack((at[:, 0].clamp(0, columns - 1.001), at[:, 1].clamp(0, rows - 1.001)), dim=1)
    low = at.floor()
    share = at - low
    first = (low[:, 1] * columns + low[:, 0]).to(torch.int64)
    total = torch.zeros(len(heat), dtype=heat.dtype)
    for down in (0, 1):
        for right in (0, 1):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            total = total - weight * heat.gather(1, (first + down * columns + right)[:, None])[:, 0]
    return total


@torch.inference_mode()
def predict(network: Localizer, images: Image, augment: Augmentation | None = None) -> tuple[Array, Array]:
    """Place and standard deviation [N, 2] m of images [N, H, W, 3]."""
    network.eval()
    places, stds = [], []
    for first in range(0, len(images), 100):
        batch = to_tensor(images[first : first + 100])
        place, std, _ = network((augment(batch) if augment else batch).contiguous(memory_format=torch.channels_last))
        places.append(place.double().numpy())
        stds.append(std.double().numpy())
    return np.concatenate(places), np.concatenate(stds)


def measure(network: Localizer, data: Labelled, seed: int) -> dict[str, float]:
    """Errors, m, on augmented images."""
    place, _ = predict(network, data.images, Augmentation(seed=seed + 999))
    return error_figures(np.linalg.norm(place - data.place, axis=1))


def error_figures(error: Array) -> dict[str, float]:
    """Mean, median and 95th percentile of distances [N] m."""
    return {
        "mean_error_m": float(error.mean()),
        "median_error_m": float(np.median(error)),
        "p95_error_m": float(np.percentile(error, 95)),
    }


def calibrate(network: Localizer, held_out: Labelled, seed: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Factor [2] of the standard deviations, and figures of the held-out renders with it.

    The factor makes 68.3 % of the errors in each axis smaller than their standard deviation. It is found on one half of
    the held-out images; the figures are of the other half.
    """
    place, std = predict(network, held_out.images, Augmentation(seed=seed + 998))
    ratio = np.abs(place - held_out.place) / std
    half = len(ratio) // 2
    factor = np.quantile(ratio[:half], 0.683, axis=0) if half else np.ones(2)
    factor = np.maximum(factor, 1e-3)
    rest = slice(half, None)
    checked = ratio[rest] / factor
    figures = error_figures(np.linalg.norm(place[rest] - held_out.place[rest], axis=1))
    figures |= {
        "images": float(len(checked)),
        "inside_1_std": float((checked < 1.0).mean()),
        "inside_2_std": float((checked < 2.0).mean()),
        "std_factor_x": float(factor[0]),
        "std_factor_y": float(factor[1]),
    }
    return torch.as_tensor(factor, dtype=torch.float32) * network.std_factor, figures


def _write_sheet(path: Path, images: Image) -> None:
    temporary = path.with_name("contact_sheet.tmp.png")
    cv2.imwrite(str(temporary), contact_sheet(list(images), 12)[..., ::-1])
    temporary.replace(path)
