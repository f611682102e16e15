"""A reach policy on a Franka through its real client (franky), in the arm's own time.

    pip install franky-control franky-sim
    python benchmarks/franka.py BUNDLE [--episodes 50] [--host ADDRESS]

Starts franky-sim (MuJoCo, Franka's network protocol) on 127.0.0.1 unless a host is given. The path is the robot's:
driver, signals, policy, safety filter. Success is judged by the end effector that the arm reports, in its own clock,
since a simulator on a busy machine is slower than the wall's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from robot_drivers import load_driver
from robot_drivers.limits import DriverError
from sim2real.evaluate.episodes import score
from sim2real.learn.experiment import bundle_experiment
from sim2real.provenance import made as facts
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.observation import measured_command
from sim2real.runtime.safety import SafetyFilter

APPROACH_RAD_S = 0.8
LONGEST_WAIT_S = 5.0


@contextmanager
def simulator():
    """franky-sim on 127.0.0.1."""
    process = subprocess.Popen(["franky-sim", "-s", "mujoco"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def connected(host: str):
    """The driver, connected; a simulator takes seconds to start."""
    driver, last = load_driver("franka", host=host, dynamics=1.0), None
    for _ in range(30):
        try:
            driver.connect()
            return driver
        except DriverError as error:
            last = error
            time.sleep(1.0)
    raise last


def wait_until(driver, moment_s: float):
    """The first reading at or after a moment of the arm's clock."""
    begun = time.monotonic()
    while True:
        state = driver.read()
        if driver.robot_time_s >= moment_s - 5e-4:
            return state
        if time.monotonic() - begun > LONGEST_WAIT_S:
            raise DriverError("the arm's clock stands still")
        time.sleep(0.001)


def go(driver, target: np.ndarray) -> None:
    """Move slowly to a pose and come to rest."""
    state = driver.read()
    names, begin, start = state.joint_names, driver.robot_time_s, state.joint_pos
    seconds = np.abs(target - start).max() / APPROACH_RAD_S + 0.5
    step = 0
    while np.abs(driver.read().joint_pos - target).max() > 2e-3 and step < 20 * (seconds + 3.0):
        share = min(1.0, (driver.robot_time_s - begin) / seconds)
        driver.command(dict(zip(names, (start + share * (target - start)).tolist(), strict=True)))
        step += 1
        wait_until(driver, begin + 0.05 * step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--host")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.host:
        run(given, given.host)
    else:
        with simulator():
            run(given, "127.0.0.1")


def run(given, host: str) -> None:
    bundle = PolicyBundle.load(given.bundle)
    task = bundle_experiment(bundle).task
    rng = np.random.default_rng([given.seed, 1])
    start = task.start(rng, given.episodes)
    goal = task.goals(rng, given.episodes, start)
    driver = connected(host)
    driver.arm(True)
    dt = bundle.spec.control_dt
    steps = round(task.episode_s / dt)
    distance = np.empty((steps, given.episodes))
    began_s, began_robot_s = time.monotonic(), driver.robot_time_s
    for episode in range(given.episodes):
        go(driver, start["joint_pos"][episode])
        runner, safety = bundle.runner(1), SafetyFilter(bundle.robot, dt)
        runner.reset()
        state = driver.read()
        begin = driver.robot_time_s
        for step in range(steps):
            measured = {
                "joint_pos": state.joint_pos[None],
                "joint_vel": state.joint_vel[None],
                "ee_pos": state.pos[None],
            }
            signals = task.signals.measure(measured, goal[episode : episode + 1])
            if step == 0:
                safety.activate(measured_command(bundle.spec, signals)[0])
            sent = safety.step(runner.step(signals)[0], 0.0, {})
            driver.command(dict(zip(bundle.robot.actuators, sent.tolist(), strict=True)))
            state = wait_until(driver, begin + (step + 1) * dt)
            distance[step, episode] = np.linalg.norm(state.pos - goal[episode])
        outside = np.flatnonzero(distance[:, episode] > task.tolerance_m)
        there_s = (outside[-1] + 1) * dt if len(outside) else 0.0
        print(
            f"episode {episode + 1:3d}: {1e3 * distance[-1, episode]:5.1f} mm, there after {there_s:.1f} s", flush=True
        )
    pace = (driver.robot_time_s - began_robot_s) / (time.monotonic() - began_s)
    driver.disconnect()
    never = np.zeros(given.episodes, dtype=bool)
    cell = score(distance, distance <= task.tolerance_m, never, never, task, 1.0 / dt).summary()
    low, high = cell["ci95"]
    print(
        f"within {1e3 * task.tolerance_m:.0f} mm for the last {task.hold_s} s: {cell['success']:.0%} of "
        f"{given.episodes} [{low:.0%} to {high:.0%}], median {1e3 * cell['final_error_m']:.1f} mm; "
        f"the arm's clock ran at {pace:.2f} of the wall's"
    )
    if given.json:
        given.json.write_text(json.dumps({"made": facts(), "cell": cell, "pace": pace}, indent=1) + "\n")


if __name__ == "__main__":
    main()
