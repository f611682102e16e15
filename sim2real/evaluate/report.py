"""One self-contained HTML page: what was trained, how it flew, and from what."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from sim2real.evaluate.figures import data_uri, figure_uri, plt
from sim2real.evaluate.page import write_page
from sim2real.learn.experiment import Experiment
from sim2real.learn.simulated import SimulatedEpisodes
from sim2real.runtime.policy import PolicyRunner
from sim2real.tasks.env import TaskEnv
from sim2real.tasks.view import mark_goal, snapshot
from sim2real.types import Image

COLOURS = {
    "nominal": "#b4472e",
    "randomized": "#c79a2b",
    "up_osi": "#2b6cb0",
    "oracle": "#4a7c59",
    "controller": "#6b5b7b",
}
TABLES = (
    ("in_process", "Target simulator, in process"),
    ("minute", "Target simulator, a minute at the goal"),
    ("ten_minutes", "Target simulator, ten minutes at the goal"),
    ("ros2", "Target simulator, over ROS 2"),
)


@dataclass
class Report:
    """Contents of the page; every part may be missing.

    Attributes:
        verdict: What the results say, in sentences.
        criterion: What counts as success, in words.
        tolerance_m, hold_s: The same in figures; the latter at the end of an episode.
        results: ``{"in_process": {policy: {variant: {condition: cell}}}, …}``, with the keys of ``TABLES``.
        learning: Training history of each policy, ``[{"samples", "success", "reward", …}]``.
        trajectories: Distance to the goal [T, N] m of some flights, by policy.
        flights: Flights in the training simulator with estimates over time.
        animation: PNG or GIF pictures as data URIs.
        facts: Lines of the footer: versions, commit, hardware, durations.
    """

    title: str
    verdict: Sequence[str] = ()
    criterion: str = ""
    tolerance_m: float = 0.03
    hold_s: float = 1.0
    results: dict[str, Any] = field(default_factory=dict)
    learning: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    trajectories: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    trajectory_label: str = ""
    flights: SimulatedEpisodes | None = None
    animation: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def write_report(report: Report, path: Path) -> Path:
    """Render ``report`` to ``path``."""
    return write_page(
        path,
        "report.html",
        title=report.title,
        facts=report.facts,
        report=report,
        colours=COLOURS,
        tables=TABLES,
        learning=plot_learning(report.learning) if report.learning else "",
        trajectories=plot_trajectories(report) if report.trajectories else "",
        estimates=plot_estimates(report.flights) if report.flights and report.flights.terms else "",
        identification=report.flights.identification(1.0) if report.flights else {},
    )


def plot_learning(learning: dict[str, list[dict[str, float]]]) -> str:
    """Success and reward over training samples, one line a policy."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name, history in learning.items():
        samples = [row["samples"] / 1e6 for row in history]
        for axis, key in zip(axes, ("success", "reward"), strict=True):
            axis.plot(samples, [row[key] for row in history], label=name, color=COLOURS.get(name), linewidth=1.4)
    axes[0].set(xlabel="control steps, millions", ylabel="success in training (exploring)", ylim=(0, 1))
    axes[1].set(xlabel="control steps, millions", ylabel="reward a step")
    axes[0].legend(frameon=False)
    return figure_uri(figure)


def plot_trajectories(report: Report) -> str:
    """Distance to the goal over time, one panel a policy, with the tolerance drawn."""
    trajectories = report.trajectories
    count = len(trajectories)
    figure, axes = plt.subplots(1, count, figsize=(3.2 * count, 2.8), sharey=True, layout="constrained", squeeze=False)
    for axis, (name, distance) in zip(axes[0], trajectories.items(), strict=True):
        time = 0.02 * np.arange(1, len(distance) + 1)
        axis.semilogy(time, distance[:, :20], color=COLOURS.get(name, "#555"), linewidth=0.7, alpha=0.6)
        axis.axhline(report.tolerance_m, color="black", linewidth=0.8, linestyle="--")
        axis.axvspan(time[-1] - report.hold_s, time[-1], color="#000", alpha=0.06)
        axis.set(title=name, xlabel="time, s", ylim=(1e-3, 3.0))
    axes[0][0].set_ylabel("distance to goal, m")
    return figure_uri(figure)


def plot_estimates(flights: SimulatedEpisodes, names: Sequence[str] = ()) -> str:
    """True (dashed) against estimated parameters over time for a few flights, one panel a parameter."""
    chosen = [i for i, term in enumerate(flights.terms) if not names or term.name in names]
    columns = min(5, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.1 * rows), layout="constrained", squeeze=False)
    time = flights.control_dt * np.arange(1, len(flights.estimate) + 1)
    shown = np.nonzero(~flights.failed)[0][:4]
    for axis in axes.flat[len(chosen) :]:
        axis.remove()
    for axis, index in zip(axes.flat, chosen, strict=False):
        term = flights.terms[index]
        for robot in shown:
            (line,) = axis.plot(time, flights.estimate[:, robot, index], linewidth=1.0)
            axis.axhline(flights.truth[robot, index], color=line.get_color(), linewidth=0.9, linestyle="--")
        axis.set_title(f"{term.name} [{term.unit}]", fontsize=8)
        axis.tick_params(labelsize=7)
        low, high = flights.truth[:, index].min(), flights.truth[:, index].max()
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    return figure_uri(figure)


def animate(experiment: Experiment, runner: PolicyRunner, seed: int, every: int = 5) -> str:
    """Show an episode in the training simulator as an animated picture (GIF data URI), the goal as a cross.

    Args:
        experiment: Whose simulator and randomization.
        runner: Policy for one robot; it is reset.
        seed: Of start and physics.
        every: Control steps between pictures.
    """
    env = experiment.make_env(seed, 1, restart=False)
    frames = film(env, runner, every)
    return data_uri(encode_gif(frames, every * env.spec.control_dt), "gif")


def film(env: TaskEnv, runner: PolicyRunner, every: int = 5, width: int = 480, height: int = 360) -> list[Image]:
    """Run one episode of one robot and take a picture [height, width, 3] every few control steps; ``env`` is closed."""
    mark_goal(env)
    runner.reset()
    frames = []
    for step in range(env.episode_steps):
        if step % every == 0:
            frames.append(snapshot(env, width, height))
        env.sim.step(runner.step(env.task.signals.measure(env.sim.measured(), env.goal)))
    env.sim.close()
    return frames


def encode_gif(frames: Sequence[Image], seconds: float) -> bytes:
    """Encode pictures as an endless GIF, each shown for ``seconds``."""
    palette = [PilImage.fromarray(frame).quantize(48) for frame in frames]
    buffer = io.BytesIO()
    palette[0].save(buffer, "GIF", save_all=True, append_images=palette[1:], duration=round(1000 * seconds), loop=0)
    return buffer.getvalue()
