"""A trained localizer as ONNX bytes, checked against torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real.errors import BundleError
from sim2real.perceive.network import Deployed, Localizer
from sim2real.perception import TOLERANCE_M
from sim2real.policy import onnx_session

OPSET = 18


def export_localizer(network: Localizer, images: NDArray[np.uint8]) -> bytes:
    """``image`` uint8 [N, H, W, 3] to ``place`` and ``std`` [N, 2] m.

    Args:
        network: Trained.
        images: Some to compare on [N, H, W, 3].

    Raises:
        BundleError: onnxruntime finds other places than torch.
    """
    deployed = Deployed(network).eval()
    example = torch.from_numpy(np.ascontiguousarray(images[:2]))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed, (example,), input_names=["image"], output_names=["place", "std"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
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
