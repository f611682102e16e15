"""Tune the hover task's classical controller in the randomized training simulator, as policies are trained there.

    python benchmarks/tune_hover_controller.py [--generations 25] [--robots 256]

CMA-ES over the logarithms of its gains, from plain ones. It prints gains for
``sim2real/tasks/hover_controller.py``; the target is never looked at.
"""

from __future__ import annotations

import argparse

import cma
import numpy as np
from rich.console import Console

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.tasks.hover_controller import HoverGains
from sim2real.tasks.success import Holding, within

FIRST = HoverGains(position=(2.0, 3.0), velocity=(2.0, 3.0), integral=(0.5, 2.0))
PAIRS = ("position", "velocity", "integral")


def gains_of(logs: np.ndarray) -> HoverGains:
    """Gains whose logarithms these are."""
    values = [float(value) for value in np.exp(logs)]
    pairs = {name: (values[2 * i], values[2 * i + 1]) for i, name in enumerate(PAIRS)}
    return HoverGains(**pairs, heading=FIRST.heading)


def fly(experiment, gains, robots, seed):
    """Success, and the mean distance of the last second cut at 0.3 m."""
    env = experiment.make_env(seed, robots, restart=False)
    task, sim = env.task, env.sim
    runner = task.controller(experiment.spec(), robots, gains)
    steps = round(task.hold_s * env.spec.control_rate_hz)
    holding, last = Holding(robots, steps), []
    for _ in range(env.episode_steps):
        sim.step(runner.step(task.signals.measure(sim.measured(), env.goal)))
        holding.update(within(task, sim.state, env.goal), task.failed(sim.state, env.goal))
        last.append(np.minimum(task.distance(sim.state, env.goal), 0.3))
    sim.close()
    far = np.where(holding.failed, 0.3, np.mean(last[-steps:], axis=0))
    return float(holding.success.mean()), float(far.mean())


def main() -> None:
    """Search, then judge on physics that the search has not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=25)
    parser.add_argument("--robots", type=int, default=256)
    arguments = parser.parse_args()
    experiment, console = load_experiment(load_config("randomized")), Console()
    first = np.log([value for name in PAIRS for value in getattr(FIRST, name)])
    search = cma.CMAEvolutionStrategy(first, 0.4, {"popsize": 8, "seed": 1, "verbose": -9})
    for generation in range(arguments.generations):
        points = search.ask()
        scores = [fly(experiment, gains_of(point), arguments.robots, 100 + generation) for point in points]
        search.tell(points, [far - 0.2 * success for success, far in scores])
        best = max(scores)
        console.print(f"{generation + 1}/{arguments.generations}: success {best[0]:.1%}, {1000 * best[1]:.0f} mm")
    gains = gains_of(search.result.xfavorite)
    success, far = fly(experiment, gains, 1024, 10_000)
    console.print(gains.model_dump(), f"\nheld-out physics: success {success:.1%}, {1000 * far:.0f} mm")


if __name__ == "__main__":
    main()
