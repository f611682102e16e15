"""One self-contained page of a replay or an identification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.evaluate.figures import figure_uri, plt
from sim2real.evaluate.page import write_page
from sim2real.identify.arm.fit import JointFit
from sim2real.identify.arm.parameters import correlation
from sim2real.identify.arm.replay import MotionReplay, pooled
from sim2real.identify.arm.segments import SEGMENT_S
from sim2real.robots.arm import Arm

CONFUSED = 0.9
WORST = 6


def write_identification_report(
    path: Path,
    arm: Arm,
    motions: Sequence[MotionReplay],
    title: str,
    lead: str,
    facts: Mapping[str, str],
    content: Mapping[str, Any] | None = None,
    fits: Sequence[JointFit] = (),
    gap: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page.

    Args:
        path: Where.
        arm: The robot.
        motions: Replays in PyBullet.
        title: Heading.
        lead: First sentence.
        facts: Lines of the footer.
        content: A parameters file, where there is one.
        fits: What it came from.
        gap: Of motion capture, where there is some.
    """
    errors = {
        "measured = commanded": pooled(motions, [m.lag_rmse for m in motions]).tolist(),
        "simulated": pooled(motions, [m.rmse for m in motions]).tolist(),
    }
    held = _held_out(motions, fits)
    if held is not None:
        errors["simulated, motions held out of the fit"] = held
    return write_page(
        path,
        "identification.html",
        title=title,
        lead=lead,
        joints=arm.joints,
        errors=errors,
        motions=_plot_motions(motions),
        tracks=_plot_worst(arm, motions),
        parameters=_table(arm, content["parameters"]) if content else {},
        units={name: quantity.unit for name, quantity in arm.servo.items()},
        segment_s=f"{SEGMENT_S:g}",
        confused=[line for fit in fits for line in confused(fit)],
        correlations=_plot_correlations(fits) if fits else "",
        facts=facts,
        gap=gap and {"all recordings": gap, **gap["per_motion"]},
    )


def confused(fit: JointFit) -> list[str]:
    """Pairs of quantities that the recordings cannot tell apart, in words."""
    matrix = correlation(fit.covariance)
    pairs = np.argwhere(np.triu(np.abs(matrix) > CONFUSED, k=1))
    return [f"{fit.joint}: {fit.names[i]} and {fit.names[j]} (correlation {matrix[i, j]:+.2f})" for i, j in pairs]


def _held_out(motions: Sequence[MotionReplay], fits: Sequence[JointFit]) -> list[float] | None:
    if not fits or not all(fit.held_out for fit in fits):
        return None
    rows = np.array([len(m.time) for m in motions])
    return [float(np.sqrt(np.average([f.held_out[m.name] for m in motions], weights=rows))) for f in fits]


def _table(arm: Arm, parameters: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [parameters[f"{joint}.{name}"] for joint in arm.joints] for name in arm.servo}


def _plot_motions(motions: Sequence[MotionReplay]) -> str:
    order = sorted(motions, key=lambda m: -float(m.rmse.mean()))
    figure, axis = plt.subplots(figsize=(9, 0.22 * len(order) + 1.0), layout="constrained")
    y = np.arange(len(order))
    axis.barh(y, [1e3 * m.lag_rmse.mean() for m in order], color="#d9dee5", label="measured = commanded")
    axis.barh(y, [1e3 * m.rmse.mean() for m in order], color="#2b6cb0", height=0.5, label="simulated")
    axis.set_yticks(y, [m.name for m in order], fontsize=8)
    axis.set(xlabel="mean joint error, mrad (root mean square)")
    axis.invert_yaxis()
    axis.legend(frameon=False, loc="lower right")
    return figure_uri(figure)


def _plot_worst(arm: Arm, motions: Sequence[MotionReplay]) -> str:
    worst = sorted(motions, key=lambda m: -m.worst_window()[1])[:WORST]
    figure, axes = plt.subplots(len(worst), 1, figsize=(9, 1.7 * len(worst)), layout="constrained", squeeze=False)
    for axis, motion in zip(axes[:, 0], worst, strict=True):
        start, error = motion.worst_window()
        rows = (motion.time >= start - 1.0) & (motion.time <= start + 2.0)
        joint = int(((motion.simulated - motion.measured)[rows] ** 2).mean(axis=0).argmax())
        time = motion.time[rows]
        axis.plot(time, motion.command[rows, joint], ":", color="#888", linewidth=1.0)
        axis.plot(time, motion.measured[rows, joint], color="black", linewidth=1.2)
        axis.plot(time, motion.simulated[rows, joint], color="#b4472e", linewidth=1.2)
        axis.set_title(f"{motion.name}, {arm.joints[joint]}: {1e3 * error:.0f} mrad over the joints", fontsize=9)
        axis.set_ylabel("rad")
    axes[-1, 0].set_xlabel("time, s")
    return figure_uri(figure)


def _plot_correlations(fits: Sequence[JointFit]) -> str:
    columns = 3
    rows = -(-len(fits) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9.5, 3.2 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(fits) :]:
        axis.remove()
    for axis, fit in zip(axes.flat, fits, strict=False):
        axis.imshow(correlation(fit.covariance), vmin=-1, vmax=1, cmap="RdBu")
        axis.set_title(fit.joint, fontsize=9)
        axis.set_xticks(range(len(fit.names)), fit.names, rotation=90, fontsize=6)
        axis.set_yticks(range(len(fit.names)), fit.names, fontsize=6)
    return figure_uri(figure)
