"""Environment steps per second on one core, next to other drone environments, in one run on one machine.

    python benchmarks/peers.py                                   prints JSON
    python benchmarks/peers.py > benchmarks/results/peers.json   records it

Peers are not dependencies of this project. Install them beside it in an environment that is thrown away afterwards,
without their pins of libraries that both share (PyFlyt asks for NumPy 1, and runs with 2):

    pip install numba pettingzoo transforms3d
    pip install --no-deps PyFlyt 'gym-pybullet-drones @ git+https://github.com/learnsyslab/gym-pybullet-drones'

Each is measured as its authors ship it: default rates, default task, its own automatic physics, one drone. An
environment step is one control period, whose length and number of physics steps differ between projects; so
the simulated time per second of wall time is given too. Actions are small and random around hover. Resets after the
end of an episode count; since they are dear in the peers and depend on how soon these actions end an episode, the
peers' rate without them is given too. Every measurement has a fresh process on the same core, and the rounds alternate
between the projects, so that a slow spell of the machine does not fall on one of them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
WARM_UP_S = 0.5
OURS = {"sim2real, 1 robot": 1, "sim2real, 64 robots": 64, "sim2real, 256 robots": 256}
GYM_PYBULLET_DRONES = "gym-pybullet-drones HoverAviary"
PYFLYT = "PyFlyt QuadX-Hover"
INSTALL = {
    GYM_PYBULLET_DRONES: (
        "gym_pybullet_drones",
        "pip install transforms3d && "
        "pip install --no-deps 'gym-pybullet-drones @ git+https://github.com/learnsyslab/gym-pybullet-drones'",
    ),
    PYFLYT: ("PyFlyt", "pip install numba pettingzoo && pip install --no-deps PyFlyt"),
}
VERSIONS = ("numpy", "pybullet", "gymnasium", "gym-pybullet-drones", "PyFlyt", "numba")

# A step function returns the number of environment steps it made, the number of episodes that ended, and the time
# that resets took, s (0 where they are part of the step).
Step = Callable[[], tuple[int, int, float]]


def ours(robots: int) -> tuple[Step, dict[str, float]]:
    """Full randomization; what training reads in every step is read: observation and true parameters."""
    from sim2real.config import load_config
    from sim2real.learn.experiment import load_experiment
    from sim2real.methods import load_method

    experiment = load_experiment(load_config("up_osi"))
    experiment = load_method(experiment.config.method).prepare(experiment)
    env = experiment.make_env(0, robots, groups=["observation"])
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (256, robots, len(env.spec.action))).astype(np.float32)
    turn = 0

    def step() -> tuple[int, int, float]:
        nonlocal turn
        _, terminated, truncated = env.step(actions[turn % len(actions)])
        env.observation()
        env.parameters()
        turn += 1
        return robots, int((terminated | truncated).sum()), 0.0

    return step, {"control_hz": env.spec.control_rate_hz, "physics_steps": env.sim.decimation}


def gym_pybullet_drones() -> tuple[Step, dict[str, float]]:
    """Rotor speeds of ±5 % around hover, which is this environment's whole range; a tenth of it is used."""
    from gym_pybullet_drones.envs.HoverAviary import HoverAviary

    env = HoverAviary()
    actions = 0.1 * np.random.default_rng(0).uniform(-1.0, 1.0, (256, *env.action_space.shape)).astype(np.float32)
    return _gymnasium_step(env, actions), {
        "control_hz": env.CTRL_FREQ,
        "physics_steps": env.PYB_FREQ / env.CTRL_FREQ,
    }


def pyflyt() -> tuple[Step, dict[str, float]]:
    """Body rates up to 0.1 rad/s and thrust around hover."""
    import gymnasium
    import PyFlyt.gym_envs  # noqa: F401  its environments register themselves

    name = max(name for name in gymnasium.registry if name.startswith("PyFlyt/QuadX-Hover-v"))
    env = gymnasium.make(name, disable_env_checker=True)
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (256, 4))
    actions[:, 3] = 0.3 + 0.1 * actions[:, 3]
    step = _gymnasium_step(env, actions)
    inner = env.unwrapped
    return step, {
        "control_hz": 120 / inner.env_step_ratio,
        "physics_steps": inner.env_step_ratio * inner.env.updates_per_step,
    }


def _gymnasium_step(env: Any, actions: np.ndarray) -> Step:
    env.reset(seed=0)
    turn = 0

    def step() -> tuple[int, int, float]:
        nonlocal turn
        _, _, terminated, truncated, _ = env.step(actions[turn % len(actions)])
        turn += 1
        if not (terminated or truncated):
            return 1, 0, 0.0
        start = time.perf_counter()
        env.reset()
        return 1, 1, time.perf_counter() - start

    return step


def measure(name: str, seconds: float) -> dict[str, float]:
    """Measure one environment in this process."""
    if name in OURS:
        step, rates = ours(OURS[name])
    else:
        step, rates = {GYM_PYBULLET_DRONES: gym_pybullet_drones, PYFLYT: pyflyt}[name]()
    _run(step, WARM_UP_S)
    steps, episodes, resets_s, elapsed = _run(step, seconds)
    per_s = steps / elapsed
    return {
        "env_steps_per_s": round(per_s, 1),
        "env_steps_per_s_without_resets": round(steps / (elapsed - resets_s), 1),
        "simulated_s_per_s": round(per_s / rates["control_hz"], 2),
        "physics_steps_per_s": round(per_s * rates["physics_steps"], 1),
        "steps_per_episode": round(steps / max(episodes, 1), 1),
        **rates,
    }


def _run(step: Step, seconds: float) -> tuple[int, int, float, float]:
    steps, episodes, resets_s = 0, 0, 0.0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        made, ended, reset_s = step()
        steps += made
        episodes += ended
        resets_s += reset_s
    return steps, episodes, resets_s, elapsed


def measure_elsewhere(name: str, seconds: float, core: int) -> dict[str, float]:
    """Measure one environment in a fresh process on one core."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds), "--out", str(out)]
        # PYTHONPATH: the environment with the peers need not have this project installed.
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        result = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise SystemExit(f"{name}: {result.stderr[-2000:]}")
        found: dict[str, float] = json.loads(out.read_text())
        return found


def compare(seconds: float, rounds: int, core: int) -> dict[str, Any]:
    """Measure everything that is installed, ``rounds`` times in turns."""
    absent = {name: step for name, (module, step) in INSTALL.items() if find_spec(module) is None}
    present = [name for name in (*OURS, *INSTALL) if name not in absent]
    load = os.getloadavg()[0]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in present}
    for turn in range(rounds):
        for name in present:
            found[name].append(measure_elsewhere(name, seconds, core))
            print(f"round {turn + 1}/{rounds}  {name}: {found[name][-1]['env_steps_per_s']:,.0f}/s", file=sys.stderr)
    results: dict[str, Any] = {}
    for name, measured in found.items():
        rates = [one["env_steps_per_s"] for one in measured]
        middle = min(measured, key=lambda one: abs(one["env_steps_per_s"] - statistics.median(rates)))
        results[name] = {**middle, "env_steps_per_s_of_each_round": rates}
    results.update({name: {"absent": f"to measure it: {step}"} for name, step in absent.items()})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": {**hardware(), "core": core, "load_average_before": round(load, 2)},
        "versions": versions(),
        "settings": {"seconds": seconds, "rounds": rounds, "reported": "the median round"},
        "results": results,
    }


def commit(root: Path = ROOT) -> str:
    """The commit that was measured, marked if files differ from it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def hardware() -> dict[str, Any]:
    """Processor, cores and memory."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory_gb, 1), "gpu_used": False}


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Environment steps per second next to other drone environments.")
    parser.add_argument("--seconds", type=float, default=10.0, help="wall time of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        arguments.out.write_text(json.dumps(measure(arguments.one, arguments.seconds)))
    else:
        print(json.dumps(compare(arguments.seconds, arguments.rounds, arguments.core), indent=2))


if __name__ == "__main__":
    main()
