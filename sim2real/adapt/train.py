"""Unpaired training of a generator, with everything that a killed run needs to go on exactly where it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sim2real.adapt import losses
from sim2real.adapt.batches import Batches
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.domains import Domain, objects_of
from sim2real.adapt.networks import Discriminator, Generator, Segmenter, build_task, exemplar_of, set_domain
from sim2real.errors import AdaptationError
from sim2real.learn.torch_io import follow, moved, teacher_ramp

BETAS = (0.5, 0.99)  # Adam's in the adversarial game (Radford et al. 2016: 0.5)


class Trainer:
    """Networks, optimizers and random state of one run.

    Args:
        config: The run.
        source: Training images of the simulator, with labels or masks where the configuration needs them.
        target: Training images of the camera.
        guide: What the perception loss asks, from ``gate.train_detector``; given exactly where that loss has a weight.
    """

    def __init__(self, config: AdaptConfig, source: Domain, target: Domain, guide: Segmenter | None = None) -> None:
        assert (guide is not None) == bool(config.weights.perception)
        torch.manual_seed(config.seed)
        torch.set_flush_denormal(True)
        self.config = config
        self._bf16 = torch.cpu._is_avx512_bf16_supported() if config.bf16 is None else config.bf16
        self.guide = None if guide is None else guide.eval().requires_grad_(False)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.random = torch.Generator().manual_seed(config.seed + 1)
        self.source = Batches(source, config.batch_size, self.random)
        self._objects = torch.from_numpy(
            objects_of(source.masks) if source.masks is not None else np.zeros(0, np.int64)
        )
        self.target = Batches(target, config.batch_size, self.random)
        weights = config.weights
        self.networks = nn.ModuleDict({"generator": Generator(config.generator)})
        if weights.adversarial:
            self.networks["discriminator"] = Discriminator(config.discriminator)
        if weights.cycle:
            self.networks["backward_generator"] = Generator(config.generator)
            self.networks["source_discriminator"] = Discriminator(config.discriminator)
        if weights.contrastive:
            widths = [config.generator.width * min(2**i, 4) for i in range(config.generator.downs + 1)]
            self.networks["projector"] = losses.PatchProjector(widths)
        task = build_task(config, source)
        if task is not None:
            self.networks["task"] = task
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = [name for name in ("generator", "backward_generator", "task") if name in self.networks]
        self.averages = nn.ModuleDict({name: copy.deepcopy(self.networks[name]) for name in averaged}).eval()
        self.averages.requires_grad_(False)
        self.rates = {
            "generators": config.learning_rate,
            "discriminators": config.discriminator_learning_rate,
            "task": config.task.learning_rate,
        }
        groups = {
            "generators": [n for n in ("generator", "backward_generator", "projector") if n in self.networks],
            "discriminators": [n for n in ("discriminator", "source_discriminator") if n in self.networks],
            "task": [n for n in ("task",) if n in self.networks],
        }
        self.optimizers = {
            group: torch.optim.Adam(
                [p for name in names for p in self.networks[name].parameters()],
                self.rates[group],
                betas=(0.9, 0.999) if group == "task" else BETAS,
            )
            for group, names in groups.items()
            if names
        }
        self.pool: list[Tensor] = []

    @property
    def progress(self) -> float:
        """Fraction of the run that is done."""
        return self.step / self.config.steps

    def update(self) -> dict[str, float]:
        """One step of all networks.

        Returns:
            Every loss by name.

        Raises:
            AdaptationError: A loss is not finite.
        """
        fade = min(1.0, 2.0 * (1.0 - self.progress))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * max(fade, 0.02)
        self.networks.train()
        source, target = self.source.sample(), self.target.sample()
        with self._precision():
            noise, exemplar = self._noise(source["images"]), self._exemplar()
            maps = self.generator.encode(source["images"], noise, exemplar)
            adapted = self.generator.decode(maps, self.generator.start(source["images"], exemplar)).float()
        values = self._discriminate("discriminator", target["images"], adapted)
        values |= self._generate(source, target, adapted, maps, exemplar)
        self._check_finite(values)
        for name in ("generators", "task"):
            if name in self.optimizers:
                self.optimizers[name].step()
        self._average()
        self.step += 1
        return {name: float(value) for name, value in values.items()}

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bf16)

    @property
    def generator(self) -> Generator:
        """The network that translates from source to target."""
        network = self.networks["generator"]
        assert isinstance(network, Generator)
        return network

    def _noise(self, images: Tensor) -> Tensor | None:
        return self.generator.sample_noise(images, self.random)

    def _exemplar(self) -> Tensor | None:
        if not self.config.generator.exemplar:
            return None
        return exemplar_of(self.target.sample()["images"], self.random).contiguous(memory_format=torch.channels_last)

    def _seen(self, *batches: Tensor) -> list[Tensor]:
        """Batches as a discriminator sees them: noisy and augmented, the same way for all."""
        sigma = self.config.discriminator.noise * (1.0 - self.progress)
        seen = list(batches)
        if self.config.augment:
            shift = [
                int(torch.randint(-side // 8, side // 8 + 1, (1,), generator=self.random)) for side in seen[0].shape[2:]
            ]
            mirror = bool(torch.randint(2, (1,), generator=self.random))
            by = torch.tensor([shift[::-1]])
            seen = [moved(x.flip(3) if mirror else x, by.expand(len(x), 2)) for x in seen]
        if sigma > 0:
            seen = [x + sigma * torch.randn(x.shape, generator=self.random) for x in seen]
        return seen

    def _discriminate(self, name: str, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if name not in self.networks:
            return {}
        network = self.networks[name].requires_grad_(True)
        if name == "discriminator":
            fake = self._pooled(fake.detach())
        real, fake = self._seen(real, fake.detach())
        with self._precision():
            loss = losses.adversarial_discriminator(network(real), network(fake))
        values = {name: loss.detach()}
        self._check_finite(values)
        optimizer = self.optimizers["discriminators"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        network.requires_grad_(False)
        return values

    def _pooled(self, fake: Tensor) -> Tensor:
        """Newest images, half of them exchanged for older ones (Shrivastava et al. 2017)."""
        if not self.config.pool:
            return fake
        result = []
        for image in fake:
            if len(self.pool) < self.config.pool:
                self.pool.append(image.clone())
                result.append(image)
            elif torch.rand((), generator=self.random) < 0.5:
                index = int(torch.randint(len(self.pool), (1,), generator=self.random))
                result.append(self.pool[index])
                self.pool[index] = image.clone()
            else:
                result.append(image)
        return torch.stack(result).contiguous(memory_format=torch.channels_last)

    def _generate(
        self,
        source: dict[str, Tensor],
        target: dict[str, Tensor],
        adapted: Tensor,
        maps: list[Tensor],
        exemplar: Tensor | None,
    ) -> dict[str, Tensor]:
        """Backward pass of everything that is not a discriminator; the optimizers have not stepped yet."""
        weights, values = self.config.weights, {}
        with self._precision():
            if weights.adversarial:
                scores = self.networks["discriminator"](*self._seen(adapted))
                values["adversarial"] = losses.adversarial_generator(scores)
            if weights.content:
                values["content"] = losses.content_similarity(source["images"], adapted, self._foreground(source))
            if weights.identity:
                kept = self.generator(target["images"], self._noise(target["images"]), exemplar)
                values["identity"] = losses.identity(target["images"], kept)
            if weights.contrastive:
                values["contrastive"] = self._contrastive(maps, adapted, exemplar)
            if weights.paired:
                values["paired"] = losses.paired(adapted, source["pairs"])
            if self.guide is not None:
                with torch.no_grad():
                    before = self.guide(source["images"])
                values["perception"] = losses.perception_consistency(before, self.guide(adapted))
            if weights.cycle:
                values |= self._cycle(source["images"], target["images"], adapted)
            total = sum((getattr(weights, name, 0.0) * value for name, value in values.items()), torch.zeros(()))
            if "backward_adversarial" in values:
                total = total + weights.adversarial * values["backward_adversarial"]
            if "task" in self.networks:
                task_values = self._task(source, target, adapted)
                total = total + task_values["task"] + task_values["task_source"]
                if "teacher" in task_values:
                    total = total + self._teacher_weight() * task_values["teacher"]
                values |= task_values
        for name in ("generators", "task"):
            if name in self.optimizers:
                self.optimizers[name].zero_grad(set_to_none=True)
        total.backward()
        return {name: value.detach() for name, value in values.items()}

    def _foreground(self, source: dict[str, Tensor]) -> Tensor:
        """Mask of objects [B, H, W]: a table may change its appearance, what lies on it may not."""
        if "masks" not in source:
            return source["images"].amax(dim=1) > 0.5
        return torch.isin(source["masks"], self._objects) if len(self._objects) else source["masks"] > 0

    def _contrastive(self, maps: list[Tensor], adapted: Tensor, exemplar: Tensor | None) -> Tensor:
        projector = self.networks["projector"]
        assert isinstance(projector, losses.PatchProjector)
        again = self.generator.encode(adapted, self._noise(adapted), exemplar)
        positions = projector.sample(maps, self.random)
        pairs = zip(projector(again, positions), projector(maps, positions), strict=True)
        return torch.stack([losses.contrastive(query, key) for query, key in pairs]).mean()

    def _cycle(self, source: Tensor, target: Tensor, adapted: Tensor) -> dict[str, Tensor]:
        forward, backward = self.networks["generator"], self.networks["backward_generator"]
        noise = self._noise(target)
        rendered = backward(target, noise).float()
        found = self._discriminate("source_discriminator", source, rendered)
        scores = self.networks["source_discriminator"](*self._seen(rendered))
        there = losses.cycle_consistency(source, backward(adapted, self._noise(adapted)))
        here = losses.cycle_consistency(target, forward(rendered, noise))
        return found | {"cycle": there + here, "backward_adversarial": losses.adversarial_generator(scores)}

    def _task(self, source: dict[str, Tensor], target: dict[str, Tensor], adapted: Tensor) -> dict[str, Tensor]:
        network, config = self.networks["task"], self.config
        segments = config.task.kind == "segment"
        loss = losses.mask_consistency if segments else losses.classification
        truth = source["masks" if segments else "labels"]
        # The network learns from adapted images with weight one whatever the loss weighs for the generator.
        weight = config.weights.task
        reached = losses.reverse_gradient(adapted, -weight) if weight else adapted.detach()
        set_domain(network, 1)
        values = {"task": loss(network(reached), truth)}
        set_domain(network, 0)
        values["task_source"] = loss(network(source["images"]), truth)
        if self._teacher_weight():
            teacher = self.averages["task"]
            set_domain(teacher, 1)
            with torch.no_grad():
                believed = teacher(target["images"])
            grid = _random_affine(target["images"], self.random)
            transformed = functional.grid_sample(target["images"], grid, padding_mode="reflection", align_corners=False)
            if segments:
                believed = functional.grid_sample(
                    believed.float(), grid, padding_mode="reflection", align_corners=False
                )
            set_domain(network, 1)
            values["teacher"] = losses.teacher_agreement(network(transformed), believed, config.task.confidence)
        return values

    def _teacher_weight(self) -> float:
        task = self.config.task
        return task.mean_teacher * teacher_ramp(self.progress, task.teacher_starts)

    def _average(self) -> None:
        for name, average in self.averages.items():
            follow(average, self.networks[name], self.config.average, self.step, statistics=False)

    def _check_finite(self, values: dict[str, Tensor]) -> None:
        wrong = [name for name, value in values.items() if not bool(torch.isfinite(value))]
        if wrong:
            raise AdaptationError(
                f"the loss '{wrong[0]}' is not finite at step {self.step}; start again in another --out with a lower "
                "learning_rate or --set bf16=false. The checkpoint before it is as it was"
            )

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        return {
            "step": self.step,
            "networks": self.networks.state_dict(),
            "averages": self.averages.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": self.random.get_state(),
            "torch_random": torch.get_rng_state(),
            "pool": self.pool,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what ``state`` gave."""
        self.step, self.history = state["step"], state["history"]
        self.networks.load_state_dict(state["networks"])
        self.averages.load_state_dict(state["averages"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.random.set_state(state["random"])
        torch.set_rng_state(state["torch_random"])
        self.pool = list(state["pool"])


def _random_affine(x: Tensor, random: torch.Generator) -> Tensor:
    """Sampling grid that turns by up to 0.3 rad, scales by up to 15 % and shifts by up to 7.5 % of the side."""
    sample = 2.0 * torch.rand((4, len(x)), generator=random) - 1.0
    angle, scale = 0.3 * sample[0], 1.0 + 0.15 * sample[1]
    rows = [
        torch.stack((scale * angle.cos(), -scale * angle.sin(), 0.15 * sample[2]), dim=-1),
        torch.stack((scale * angle.sin(), scale * angle.cos(), 0.15 * sample[3]), dim=-1),
    ]
    return functional.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
