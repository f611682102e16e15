"""What the recordings of an SO-101 tell beyond its parameters: three figures of the README.

    python benchmarks/so101_recordings.py LOGS [--json OUT]

- Contact: how much of the replay's error falls on rows in which the arm's lowest point is so low that it presses on its
  table, when it is replayed without one.
- Excitation: how well two minutes of ``sim2real excite`` would tell the servos' acceleration, with its default limit
  and with 60 rad/s². The motion goes through the simulated arm, and 3 mrad of noise on top.
- Draws: how far arms whose servos are drawn from what was identified are from four recordings, drawn together as the
  correlations say, and each quantity by itself.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pybullet

from sim2real.files import write_text
from sim2real.identify.arm.excite import excite
from sim2real.identify.arm.replay import replay
from sim2real.identify.arm.search import covariance, simulate
from sim2real.identify.arm.segments import cut
from sim2real.identify.arm.space import Space
from sim2real.provenance import made as facts
from sim2real.recordings.logs import JointLog, read_logs
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.robots.physics import PhysicsParams
from sim2real.sim.randomization import Randomization

RESULTS = Path(__file__).parent / "results" / "so101_recordings.json"
PRESSES_M = -0.033  # lowest point of the arm, in its description's frame
EVERY = 5  # rows; the arm moves little in 0.1 s
NOISE_RAD = 0.003
DRAWS, MOTIONS = 64, ("multisine", "reach_and_return", "square_pattern", "wave_motion")


def lowest(arm: Arm, poses: np.ndarray) -> np.ndarray:
    """Height [N] m of the lowest point of the arm's moving links at poses [N, J] rad."""
    client = pybullet.connect(pybullet.DIRECT)
    body = pybullet.loadURDF(str(arm.urdf), useFixedBase=True, physicsClientId=client)
    floor = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=(5.0, 5.0, 0.5), physicsClientId=client)
    under = pybullet.createMultiBody(0, floor, basePosition=(0.0, 0.0, -1.5), physicsClientId=client)
    names = [pybullet.getJointInfo(body, i, client)[1].decode() for i in range(pybullet.getNumJoints(body, client))]
    heights = []
    for pose in poses:
        for name, angle in zip(arm.joints, pose.tolist(), strict=True):
            pybullet.resetJointState(body, names.index(name), angle, physicsClientId=client)
        points = pybullet.getClosestPoints(body, under, 5.0, physicsClientId=client)
        heights.append(min(point[5][2] for point in points if point[3] >= 1))  # the shoulder turns beside the table
    pybullet.disconnect(client)
    return np.array(heights)


def contact(arm: Arm, logs: list[JointLog]) -> dict:
    """Share of rows that press, and of every joint's squared error that falls on them."""
    rows, pressing = 0, 0
    squared, pressed = np.zeros(len(arm.joints)), np.zeros(len(arm.joints))
    for motion in replay(arm, logs, arm.nominal()):
        low = (lowest(arm, motion.measured[::EVERY]) < PRESSES_M).repeat(EVERY)[: len(motion.time)]
        error = (motion.simulated - motion.measured) ** 2
        rows, pressing = rows + len(low), pressing + int(low.sum())
        squared, pressed = squared + error.sum(axis=0), pressed + error[low].sum(axis=0)
    share = dict(zip(arm.joints, (pressed / squared).round(3).tolist(), strict=True))
    return {"share_of_rows": pressing / rows, "share_of_squared_error": share}


def excitation(arm: Arm) -> dict:
    """Standard deviation of every joint's acceleration, rad/s², by the motion's own limit."""
    result = {}
    for limit in (8.0, 60.0):
        made = excite(arm, arm.joints, duration_s=120.0, acceleration=limit)
        log = JointLog("made", arm.joints, made.time, made.command, np.tile(made.command[0], (len(made.time), 1)))
        moved = replay(arm, [log], arm.nominal())[0].simulated
        noise = NOISE_RAD * np.random.default_rng(0).standard_normal(moved.shape)
        log = replace(log, position=moved + noise)
        stds = {}
        for index, joint in enumerate(arm.joints):
            fixed = {n: float(arm.nominal()[n][index]) for n, q in arm.servo.items() if q.fixed}
            space = Space.of(arm.servo, fixed)
            best = space.encode({name: float(values[index]) for name, values in arm.nominal().items()})
            matrix = covariance(space, cut(arm, [log], index, 30.0), best)
            stds[joint] = float(np.sqrt(np.diag(matrix))[space.names.index("acceleration")])
        result[f"{limit:g}"] = stds
    return result


def draws(arm: Arm, logs: list[JointLog]) -> dict:
    """Root mean squared error (rad) of servos on recordings: of the fit, and median and 95th percentile of draws."""
    terms = arm.identified_terms(arm.folder / "identified.yaml")
    ways = {"together": terms, "apart": {n: t.model_copy(update={"correlated": {}}) for n, t in terms.items()}}
    table = PhysicsParams(arm.parameters, 1)
    drawn = {how: Randomization(ways[how], table, np.random.default_rng(0)).sample(DRAWS) for how in ways}
    chosen = [log for log in logs if log.name in MOTIONS]
    result = {}
    for index, joint in enumerate(arm.joints):
        pieces = cut(arm, chosen, index)
        rmse = {}
        for how, values in ("fit", table.nominal[None]), *drawn.items():
            servo = {name: columns[:, index] for name, columns in arm.servo_quantities(values, table).items()}
            rmse[how] = np.sqrt(simulate(servo, pieces)[1].sum(axis=1) / pieces.counts.sum())
        result[joint] = {how: np.percentile(found, [50, 95]).tolist() for how, found in rmse.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    arm = Arm(robot_folder("so101"))
    logs = read_logs([given.logs], arm.joints, arm.aliases)
    made = {"made": facts(), "contact": contact(arm, logs)}
    print(json.dumps(made["contact"], indent=1), flush=True)
    made |= {"excitation_std_rad_s2": excitation(arm), "draws_rmse_rad": draws(arm, logs)}
    print(json.dumps({name: made[name] for name in ("excitation_std_rad_s2", "draws_rmse_rad")}, indent=1))
    write_text(given.json, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
