"""Generators, discriminators and task networks; sizes are configured. Images are [B, 3, H, W] in [0, 1]."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from sim2real.adapt.config import AdaptConfig, DiscriminatorConfig, GeneratorConfig, TaskConfig
from sim2real.adapt.domains import Domain

WIDEST = 4  # times the first width, in a generator
WIDEST_DISCRIMINATOR = 8
LOGIT_RANGE = (0.02, 0.98)  # of what the output starts from, so that the network can change black and white too
SLOPE = 0.2  # of leaky ReLUs, as in Radford et al. 2016


def _norm(channels: int) -> nn.Module:
    # Of one image, not of a batch: an image's translation must not depend on its neighbours.
    return nn.GroupNorm(max(1, channels // 8), channels)


class Block(nn.Module):
    """Residual block of two 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(_norm(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        y = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(x + self.norms[1](self.second(y)))


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    kernel = 4 if stride == 2 else 3
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=1), _norm(outputs), nn.ReLU(inplace=True))


class Generator(nn.Module):
    """Encoder, residual blocks, decoder; as a U-Net (Ronneberger et al. 2015) the decoder sees the encoder's maps.

    Args:
        config: Sizes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.exemplar, self.from_input = config.exemplar, config.from_input
        widths = [config.width * min(2**i, WIDEST) for i in range(config.downs + 1)]
        self.skips = config.kind == "unet"
        self.noise_channels = config.noise
        self.factor = 2**config.downs
        self.stem = _unit(3 + config.noise + 3 * config.exemplar, widths[0])
        self.downs = nn.ModuleList(_unit(a, b, stride=2) for a, b in pairwise(widths))
        self.mix = _unit(widths[-1] + config.noise, widths[-1]) if config.noise else nn.Identity()
        self.blocks = nn.ModuleList(Block(widths[-1]) for _ in range(config.blocks))
        self.ups = nn.ModuleList(
            _unit(b + (a if self.skips else 0), a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.out = nn.Conv2d(widths[0], 3, 3, padding=1)
        if config.exemplar or config.from_input:
            self.out.weight.data *= 0.1  # begins as the exemplar or the input itself

    def noise_shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the noise that goes with images of a size."""
        return (batch, self.noise_channels, -(-height // self.factor), -(-width // self.factor))

    def sample_noise(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
        """Standard normal noise for a batch; None where the generator takes none."""
        if not self.noise_channels:
            return None
        shape = self.noise_shape(len(images), images.shape[2], images.shape[3])
        return torch.randn(shape, generator=generator, device=images.device)

    def forward(self, x: Tensor, noise: Tensor | None = None, exemplar: Tensor | None = None) -> Tensor:
        """Translated images.

        Args:
            x: [B, 3, H, W] in [0, 1]; H and W multiples of 2 ** downs.
            noise: As ``noise_shape`` says; needed exactly where the generator was made with noise.
            exemplar: [B, 3, H, W] in [0, 1], from ``exemplar_of``; needed exactly where it was made with exemplars.

        Returns:
            [B, 3, H, W] in [0, 1].
        """
        return self.decode(self.encode(x, noise, exemplar), self.start(x, exemplar))

    def encode(self, x: Tensor, noise: Tensor | None = None, exemplar: Tensor | None = None) -> list[Tensor]:
        """Feature maps from full resolution down, the last one after the residual blocks."""
        h = 2.0 * x - 1.0
        if exemplar is not None:
            h = torch.cat((h, 2.0 * exemplar - 1.0), dim=1)
        if noise is not None:
            h = torch.cat((h, functional.interpolate(noise, x.shape[2:], mode="nearest")), dim=1)
        maps = [self.stem(h)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        if noise is not None:
            maps[-1] = self.mix(torch.cat((maps[-1], noise), dim=1))
        for block in self.blocks:
            maps[-1] = block(maps[-1])
        return maps

    def start(self, x: Tensor, exemplar: Tensor | None) -> Tensor | None:
        """Image that the network's output is added to: the exemplar, the input, or nothing."""
        return x if self.from_input else exemplar

    def decode(self, maps: list[Tensor], start: Tensor | None = None) -> Tensor:
        """Image from the maps of ``encode`` and from ``start``."""
        h = maps[-1]
        for i, up in enumerate(self.ups):
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = up(torch.cat((h, maps[-2 - i]), dim=1) if self.skips else h)
        h = self.out(h)
        return torch.sigmoid(h if start is None else h + torch.logit(start.clamp(*LOGIT_RANGE)))


def exemplar_of(images: Tensor, random: torch.Generator) -> Tensor:
    """Pieces of images [B, 3, H, W], a third to a half of the side, enlarged and mirrored at random.

    A piece is too small to hold a whole object, so a generator cannot hand the camera's objects through.
    """
    count, _, height, width = images.shape
    sampled = torch.rand((count, 5), generator=random)
    size = 0.3 + 0.2 * sampled[:, 0]
    flips = torch.where(sampled[:, 3:] < 0.5, -1.0, 1.0)
    centres = (1.0 - size)[:, None] * (2.0 * sampled[:, 1:3] - 1.0)
    affine = torch.zeros((count, 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = size * flips[:, 0], size * flips[:, 1]
    affine[:, :, 2] = centres
    grid = functional.affine_grid(affine, [count, 3, height, width], align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False, padding_mode="reflection")


class Discriminator(nn.Module):
    """Patch discriminators at several scales; each gives a map of scores.

    Args:
        config: Sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.minibatch_std = config.minibatch_std
        self.scales = nn.ModuleList(_patches(config) for _ in range(config.scales))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Scores [B, 1, h, w] at every scale, of images [B, 3, H, W]."""
        scores = []
        for i, network in enumerate(self.scales):
            seen = functional.avg_pool2d(x, 2**i) if i else x
            assert isinstance(network, nn.Sequential)
            seen = network[:-1](seen)
            scores.append(network[-1](_with_minibatch_std(seen) if self.minibatch_std else seen))
        return scores


def _patches(config: DiscriminatorConfig) -> nn.Sequential:
    def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=1)
        return spectral_norm(layer) if config.spectral_norm else layer

    widths = [3, *(config.width * min(2**i, WIDEST_DISCRIMINATOR) for i in range(config.layers))]
    units = [nn.Sequential(conv(a, b, 4, 2), nn.LeakyReLU(SLOPE, inplace=True)) for a, b in pairwise(widths)]
    return nn.Sequential(*units, conv(widths[-1] + int(config.minibatch_std), 1, 3, 1))


def _with_minibatch_std(x: Tensor) -> Tensor:
    """Adds one map: the standard deviation over groups of four images, averaged (Karras et al. 2018)."""
    count = len(x)
    group = 4 if count % 4 == 0 else count
    y = x.float().reshape(group, count // group, -1)
    minibatch_std = ((y - y.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean(dim=1)
    minibatch_std = minibatch_std.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat((x, minibatch_std.to(x.dtype)), dim=1)


class DomainNorm(nn.Module):
    """Batch norm with statistics of its own for every domain (Chang et al. 2019)."""

    def __init__(self, channels: int, domains: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(domains))
        self.domain = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalized by the statistics of the domain that was set last."""
        return self.norms[self.domain](x)


def set_domain(network: nn.Module, domain: int) -> None:
    """Which domain the next images are of, for every ``DomainNorm`` of a network (0 source, 1 target)."""
    for module in network.modules():
        if isinstance(module, DomainNorm):
            module.domain = min(domain, len(module.norms) - 1)


class Classifier(nn.Module):
    """A small convolutional classifier: three stages, pooled, one layer.

    Args:
        classes: Number of classes.
        width: Channels of the first stage.
        domains: Sets of batch norm statistics; 1 shares them.
    """

    def __init__(self, classes: int, width: int, domains: int = 1) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        stages, inputs = [], 3
        for outputs in widths:
            stages += [
                nn.Conv2d(inputs, outputs, 5 if inputs == 3 else 3, padding=2 if inputs == 3 else 1, bias=False),
                DomainNorm(outputs, domains),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            inputs = outputs
        self.stages = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(16 * widths[-1], 4 * width), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.out = nn.Linear(4 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Input of the last layer [B, 4 width]."""
        return self.hidden(self.stages(2.0 * x - 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 3, H, W]."""
        return self.out(self.features(x))


class Segmenter(nn.Module):
    """A small U-Net that gives every pixel a class.

    Args:
        classes: Number of classes, background included.
        width: Channels at full resolution.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = _unit(3, width)
        self.downs = nn.ModuleList((_unit(width, 2 * width, 2), _unit(2 * width, 4 * width, 2)))
        self.middle = Block(4 * width)
        self.ups = nn.ModuleList((_unit(6 * width, 2 * width), _unit(3 * width, width)))
        self.out = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes, H, W] of images [B, 3, H, W]; H and W multiples of 4."""
        maps = [self.stem(2.0 * x - 1.0)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        h = self.middle(maps[-1])
        for i, up in enumerate(self.ups):
            h = up(torch.cat((functional.interpolate(h, scale_factor=2.0, mode="nearest"), maps[-2 - i]), dim=1))
        return self.out(h)


def parameter_count(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters())


def build_task(config: AdaptConfig, source: Domain) -> nn.Module | None:
    """The task network for a domain's labels or masks; None where the configuration wants none."""
    if config.task.kind == "classify":
        assert source.labels is not None
        return task_network(config.task, int(source.labels.max()) + 1)
    if config.task.kind == "segment":
        assert source.masks is not None
        return task_network(config.task, max([int(source.masks.max()), *source.classes]) + 1)
    return None


def task_network(config: TaskConfig, classes: int) -> nn.Module:
    """A task network, untrained."""
    return (
        Classifier(classes, config.width, domains=2) if config.kind == "classify" else Segmenter(classes, config.width)
    )
