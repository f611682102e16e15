"""A trained localizer as ONNX bytes, checked against torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real.errors import BundleError
from sim2real.learn.torch_io import to_onnx
from sim2real.perceive.network import Deployed, Localizer
from sim2real.runtime.perception import TOLERANCE_M
from sim2real.runtime.policy import onnx_session


def export_localizer(network: Localizer, images: NDArray[np.uint8]) -> bytes:
    """``image`` uint8 [N, H, W, 3] to ``place`` (position) and ``std`` [N, 2] m.

    Args:
        network: Trained.
        images: Some to compare on [N, H, W, 3].

    Raises:
        BundleError: onnxruntime finds other positions than torch.
    """
    deployed = Deployed(network).eval()
    example = torch.from_numpy(np.ascontiguousarray(images[:2]))
    data = to_onnx(deployed, {"image": example}, ["place", "std"])
    got = onnx_session(data).run(["place", "std"], {"image": np.ascontiguousarray(images)})
    with torch.inference_mode():
        expected = deployed(torch.from_numpy(np.ascontiguousarray(images)))
    difference = max(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, got, strict=True))
    if not difference <= TOLERANCE_M:
        raise BundleError(
            f"the exported network differs from torch by {difference:.1e} m, allowed are {TOLERANCE_M:.0e}; do not use "
            "this, report it with the run's config.yaml"
        )
    return data
