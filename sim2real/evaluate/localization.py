"""Errors of a perception network on a labelled dataset, and a page about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.evaluate.figures import data_uri, figure_uri, plt
from sim2real.evaluate.page import write_page
from sim2real.images.dataset import ImageDataset
from sim2real.runtime.perception import Locator, PerceptionBundle, PerceptionSpec, table_homography
from sim2real.types import Array

_VISIBLE = (0.35, 0.6, 0.8, 0.95, 1.01)  # edges of the groups by visible share


def localize(bundle: PerceptionBundle, data: ImageDataset) -> dict[str, Any]:
    """Measure a perception network on a labelled dataset, see :func:`localization_figures`.

    Raises:
        ConfigError: The dataset has no ``object_pos``.
        SpecError: Its images are of another size than the network's.
    """
    answers, stds, truth = locate_all(bundle.locator(), data)
    known = data.frames[0]
    visible = data.column("visible") if "visible" in known else None
    recorded = None
    if "T_base_camera" in known:
        recorded = at_recorded_poses(answers, bundle.spec, data.column("T_base_camera"))
    return localization_figures(answers, stds, truth, visible, recorded)


def locate_all(locator: Locator, data: ImageDataset) -> tuple[Array, Array, Array]:
    """Run a network on a labelled dataset.

    Returns:
        Answers [N, 2] m, standard deviations [N, 2] m, true positions [N, 2] m.

    Raises:
        ConfigError: The dataset has no ``object_pos``.
        SpecError: Its images are of another size than the network's.
    """
    truth = data.column("object_pos")[:, :2]
    seen = [locator.locate(image) for image in np.ascontiguousarray(data.images)]
    return np.array([s.position[:2] for s in seen]), np.array([s.std for s in seen]), truth


def at_recorded_poses(answers: Array, spec: PerceptionSpec, poses: Array) -> Array:
    """Correct answers for the camera's pose that the dataset records with each image.

    An answer is a pixel seen from the calibrated pose; the same pixel is seen from the recorded one. Simulators record
    the true pose: what is left of the error is without that of the calibrated pose (not without the lens's or the
    zoom's). A collected dataset holds the calibration's own pose, and the answers stay as they are. Answers at the
    border of the network's area are no pixels of its choice: large errors are larger than they look.

    Args:
        answers: Places [N, 2] m.
        spec: Of the network that gave them.
        poses: ``T_base_camera`` of every image [N, 4, 4].

    Returns:
        Places [N, 2] m.
    """
    to_pixels = np.linalg.inv(table_homography(spec.camera(), spec.height_m))
    recorded = [table_homography(replace(spec.camera(), T_base_camera=pose), spec.height_m) for pose in poses]
    ahead = np.einsum("nij,nj->ni", np.array(recorded) @ to_pixels, np.column_stack((answers, np.ones(len(answers)))))
    return ahead[:, :2] / ahead[:, 2:]


def localization_figures(
    answers: Array, stds: Array, truth: Array, visible: Array | None = None, recorded_pose: Array | None = None
) -> dict[str, Any]:
    """Errors, m, and how honest the standard deviations are.

    Args:
        answers: What the network says [N, 2] m.
        stds: Its standard deviations [N, 2] m.
        truth: [N, 2] m.
        visible: Fraction of the object that is visible [N], where it is known.
        recorded_pose: Answers ``at_recorded_poses`` [N, 2] m, where the dataset has these.
    """
    off = answers - truth
    error = np.linalg.norm(off, axis=1)
    ratio = np.abs(off) / stds
    sure = stds.max(axis=1)
    order = np.argsort(sure)
    surest = error[order[: max(int(0.9 * len(error)), 1)]]
    figures: dict[str, Any] = {
        "images": len(error),
        "mean_error_m": float(error.mean()),
        "median_error_m": float(np.median(error)),
        "p95_error_m": float(np.percentile(error, 95)),
        "within_15_mm": float((error <= 0.015).mean()),
        "bias_m": off.mean(axis=0).tolist(),
        "inside_1_std": float((ratio < 1.0).mean()),
        "inside_2_std": float((ratio < 2.0).mean()),
        "mean_error_of_surest_90_percent_m": float(surest.mean()),
        "rank_correlation_of_std_and_error": float(
            np.corrcoef(np.argsort(np.argsort(sure)), np.argsort(np.argsort(error)))[0, 1]
        ),
    }
    if recorded_pose is not None:
        left = np.linalg.norm(recorded_pose - truth, axis=1)
        figures |= {
            "mean_error_at_recorded_pose_m": float(left.mean()),
            "median_error_at_recorded_pose_m": float(np.median(left)),
        }
    if visible is not None:
        groups = {}
        for low, high in pairwise(_VISIBLE):
            inside = (visible >= low) & (visible < high)
            if inside.any():
                groups[f"{low:.2f}-{min(high, 1.0):.2f}"] = {
                    "images": int(inside.sum()), "mean_error_m": float(error[inside].mean()),
                }  # fmt: skip
        figures["by_visible_share"] = groups
    return figures


def write_localization_report(run_dir: Path, facts: Mapping[str, str]) -> Path:
    """``report.html`` of a finished run: what it was trained on, how it learned, how sure it is.

    Raises:
        OSError: The run is not finished.
    """
    history = json.loads((run_dir / "history.json").read_text())
    epochs = history["epochs"]
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    for key, label in (
        ("error_m", "training images"),
        ("held_out_mean_error_m", "held-out renders"),
        ("held_out_median_error_m", "held-out renders, median"),
    ):
        axis.plot(range(1, len(epochs) + 1), [1000.0 * row[key] for row in epochs], label=label, linewidth=1.4)
    axis.set(xlabel="epoch", ylabel="error, mm", yscale="log")
    axis.legend(frameon=False)
    sheet = data_uri((run_dir / "contact_sheet.png").read_bytes(), "png")
    return write_page(
        run_dir / "report.html", "localization.html", title=f"Localization: {run_dir.name}", facts=dict(facts),
        sheet=sheet, learning=figure_uri(figure), held_out=history["held_out"],
    )  # fmt: skip
