"""Training of a localizer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch.nn.functional import gaussian_nll_loss
from torch.utils.tensorboard import SummaryWriter

from sim2real.errors import ConfigError, SimulationError
from sim2real.learn.torch_io import save_state, to_tensor
from sim2real.perceive.augment import Augmentation, chosen
from sim2real.perceive.config import LocalizeConfig, area_of
from sim2real.perceive.labelled import Labelled
from sim2real.perceive.measure import measure
from sim2real.perceive.network import Localizer
from sim2real.perceive.teacher import Lesson, Teacher
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.perception import table_homography
from sim2real.types import Image, Progress

_WATCHED = 500  # held-out images looked at after every epoch


class Trainer:
    """Trains one localizer; the same seed gives the same batches.

    Args:
        config: The experiment.
        run_dir: Where checkpoints and events go.
        camera: The network's.
        origins: Hashes of what it learns from beside the renders: the generator, real images.
        unlabelled: Real images [N, H, W, 3] that a teacher labels.

    Attributes:
        network: The localizer.
        teacher: Labels real images that nobody has labelled, where there are any.
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
            data: Rendered images, in the order they are sampled from.
            held_out: Rendered images, looked at after every epoch.
            on_progress: Called after every epoch.
            labelled: Make up ``labelled_fraction`` of every batch.

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
        position = torch.as_tensor(batch.position, dtype=torch.float32)
        pixels = torch.as_tensor(batch.pixels, dtype=torch.float32)
        if lesson is not None:
            images = torch.cat((images, lesson.images))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.localizer.precision == "bf16"):
            found, std, heat = network(images.contiguous(memory_format=torch.channels_last))
        # The pixel is learned, not the position: that would have to be right in spite of a moved camera, learn the
        # camera's pose from the robot's appearance, and be wrong where the robot looks otherwise.
        likelihood = gaussian_nll_loss(found[:count].detach(), position, std[:count].square())
        finding = pixel_loss(heat[:count], pixels, network.rows, network.columns).mean()
        loss = likelihood + finding
        figures = {
            "likelihood": float(likelihood.detach()),
            "finding": float(finding.detach()),
            "error_m": float((found[:count].detach() - position).norm(dim=1).mean()),
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
        """A batch in which real images take the places of some renders."""
        count = min(max(round(self.config.labelled_fraction * len(batch.images)), 1), len(batch.images))
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
    fraction = at - low
    first = (low[:, 1] * columns + low[:, 0]).to(torch.int64)
    total = torch.zeros(len(heat), dtype=heat.dtype)
    for down in (0, 1):
        for right in (0, 1):
            across = fraction[:, 0] if right else 1 - fraction[:, 0]
            weight = across * (fraction[:, 1] if down else 1 - fraction[:, 1])
            total = total - weight * heat.gather(1, (first + down * columns + right)[:, None])[:, 0]
    return total
