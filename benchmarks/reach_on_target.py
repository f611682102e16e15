"""A reach policy on the SO-101 target in MuJoCo: 100 episodes, in process.

python benchmarks/reach_on_target.py RUN/bundle
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from robot_drivers.so101_arm import ENCODER_STEP, ArmModel, ArmSensors
from sim2real.bundle import PolicyBundle
from sim2real.evaluate.in_process import wilson
from sim2real.kinematics import arm_signals
from sim2real.robots import robot_folder
from sim2real.sim.arm import Arm
from sim2real.tasks.reach import Reach, ReachSettings

EPISODES = 100


def main() -> None:
    bundle = PolicyBundle.load(Path(sys.argv[1]))
    arm = Arm(robot_folder(bundle.spec.robot))
    task = Reach(arm, ReachSettings())
    rng = np.random.default_rng(12345)
    starts, goals = task.start(rng, EPISODES).joint_pos, task.goals(rng, EPISODES)
    sensors, dt = ArmSensors(), bundle.spec.control_dt
    for label in ("policy", "task's own controller"):
        successes, ends = 0, []
        for start, goal in zip(starts, goals, strict=True):
            target, runner = ArmModel(), bundle.runner()
            target.reset(start)
            late, velocity = start, np.zeros(6)
            distance = []
            command = start.copy()
            for _ in range(round(task.episode_s / dt)):
                position = late + sensors.noise_rad * rng.standard_normal(6)
                position = np.round(position / ENCODER_STEP) * ENCODER_STEP
                late, velocity = target.position, target.velocity
                signals = arm_signals(arm.chain, arm.ee, position[None], velocity[None], goal[None])
                if label == "policy":
                    command = runner.step(signals)[0]
                else:
                    signals["command_lead"] = command[None] - position[None]
                    step = task.teacher(signals)[0] * task.settings.speed * dt
                    low, high = np.array([(c.low, c.high) for c in arm.spec.commands]).T
                    command = np.clip(command + np.clip(step, -0.04, 0.04), low, high)
                target.advance(command, dt, sensors.command_delay_s)
                distance.append(float(np.linalg.norm(target.ee_pos - goal)))
            end = distance[-round(task.hold_s / dt) :]
            successes += max(end) <= task.settings.tolerance_m
            ends.append(np.mean(end))
        low, high = wilson(successes, EPISODES)
        share = f"{successes} of {EPISODES} within 1 cm ({low:.0%} to {high:.0%})"
        print(f"{label}: {share}, median {1e3 * np.median(ends):.1f} mm")


if __name__ == "__main__":
    main()
