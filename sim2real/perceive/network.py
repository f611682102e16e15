"""A small convolutional network that finds one object and says how sure it is.

Feature maps keep their position: a soft keypoint (spatial softmax; Levine et al. 2016) is where the object is in the
image, and a pixel of the calibrated camera is a point of the table. Nothing is added to that: a learned correction,
which saw the whole image, took a fifth off the error on renders (it told how far the camera had moved) and put 8 mm of
bias on real images, where the robot looks otherwise.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

LEAST_STD_M, MOST_STD_M = 5e-4, 0.5
_HIDDEN = 96
_WINDOW_PX = 10.0


class Localizer(nn.Module):
    """Images to a position on the table and its uncertainty.

    Args:
        homography: [3, 3]: (column, row, 1) of the calibrated camera to the plane of the object's centre, m.
        width: Filters of the first layer.
        image_size: Height and width of images, px.
        area: x from and to, y from and to, m: where answers lie.
    """

    pixels: torch.Tensor
    homography: torch.Tensor
    size: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    std_factor: torch.Tensor

    def __init__(
        self,
        homography: torch.Tensor,
        width: int,
        image_size: tuple[int, int],
        area: tuple[float, float, float, float],
    ) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(_conv(3, w, 5, stride=2), _conv(w, 2 * w, 3, stride=2), _conv(2 * w, 2 * w, 3))
        self.middle = nn.Sequential(_conv(2 * w, 4 * w, 3, stride=2), _conv(4 * w, 4 * w, 3))
        self.deep = nn.Sequential(_conv(4 * w, 6 * w, 3, stride=2), _conv(6 * w, 6 * w, 3))
        self.from_deep, self.from_middle = nn.Conv2d(6 * w, 4 * w, 1), nn.Conv2d(4 * w, 2 * w, 1)
        self.mix, self.fine = _conv(4 * w, 4 * w, 3), _conv(2 * w, 2 * w, 3)
        self.map = nn.Conv2d(2 * w, 1, 1)
        self.head = nn.Sequential(nn.Linear(3 + 2 * w, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU())
        self.log_std = nn.Linear(_HIDDEN, 2)
        nn.init.zeros_(self.log_std.weight)
        nn.init.constant_(self.log_std.bias, -3.5)
        height, across = image_size
        self.rows, self.columns = -(-height // 4), -(-across // 4)
        # Where the middles of the maps' cells are in the image, px.
        v, u = torch.meshgrid(
            4.0 * torch.arange(self.rows) + 1.5, 4.0 * torch.arange(self.columns) + 1.5, indexing="ij"
        )
        self.register_buffer("pixels", torch.stack((u.ravel(), v.ravel()), dim=1))
        self.register_buffer("homography", homography.to(torch.float32))
        self.register_buffer("size", torch.tensor([float(across), float(height)]))
        self.register_buffer("low", torch.tensor([area[0], area[2]]))
        self.register_buffer("high", torch.tensor([area[1], area[3]]))
        self.register_buffer("std_factor", torch.ones(2))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the object.

        Args:
            images: [N, 3, H, W] in [0, 1].

        Returns:
            Place (x, y) [N, 2] m in the base frame, its standard deviation [N, 2] m, and where the object may be as
            log-probabilities over the map's cells [N, R × C].
        """
        shallow = self.stem(images - 0.5)
        middle = self.middle(shallow)
        deep = self.deep(middle)
        middle = self.mix(middle + _double(self.from_deep(deep)))
        features = self.fine(shallow + _double(self.from_middle(middle)))
        heat = self.map(features)
        with torch.autocast("cpu", enabled=False):  # a pixel does not fit into bfloat16
            position, std, logs = self._read(features.float().flatten(2), heat.float().flatten(1))
        return position, std, logs

    def _read(self, features: torch.Tensor, heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logs = functional.log_softmax(heat, dim=1)
        probabilities = logs.exp()
        pixel, _ = self.read_pixels(probabilities)
        ray = torch.cat((pixel, torch.ones_like(pixel[:, :1])), dim=1) @ self.homography.T
        # The horizon maps to infinity; rows above the table are no positions.
        position = (ray[:, :2] / ray[:, 2:].clamp_min(0.05)).clamp(self.low, self.high)
        entropy = ((probabilities * logs).sum(dim=1, keepdim=True) / 7.0).neg()  # entropy, about 0 to 1
        seen = (features * probabilities[:, None]).sum(dim=2)
        # How sure it is does not change what it finds.
        hidden = self.head(torch.cat(((pixel / self.size - 0.5) * 4.0, entropy, seen), dim=1).detach())
        std = self.log_std(hidden).exp().clamp(LEAST_STD_M, MOST_STD_M) * self.std_factor
        return position, std, logs

    def read_pixels(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the object's pixel from a map, around its peak: what is likely elsewhere would pull the mean aside.

        Args:
            probabilities: Of the map's cells [N, R × C].

        Returns:
            Mean pixel (column, row) around the largest cell [N, 2], and the fraction of the map that is there [N].
        """
        best = self.pixels[probabilities.argmax(dim=1)]  # [N, 2]
        near = ((self.pixels[None] - best[:, None]).abs().amax(dim=2) <= _WINDOW_PX).to(probabilities.dtype)
        local = probabilities * near
        mass = local.sum(dim=1, keepdim=True)
        return (local @ self.pixels) / mass, mass[:, 0]


class Deployed(nn.Module):
    """A localizer as it is exported: takes pixels as cameras give them.

    Args:
        localizer: Trained.
    """

    def __init__(self, localizer: Localizer) -> None:
        super().__init__()
        self.localizer = localizer

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 RGB images [N, H, W, 3] to position and standard deviation [N, 2] m."""
        position, std, _ = self.localizer(image.permute(0, 3, 1, 2).to(torch.float32) / 255.0)
        return position, std


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _double(maps: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")
