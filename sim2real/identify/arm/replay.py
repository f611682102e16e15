"""Recorded commands, driven through the simulated arm, against what the real arm did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim2real.identify.arm.table import LowestPoint, Table, tables_of
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.robots.servo import Servo
from sim2real.sim.world import NO_GRAVITY, World
from sim2real.types import Array

SIM_DT = 0.01
GRAVITY_EVERY = 4  # physics steps; a pose changes little in 40 ms
LANES = 16
WINDOW_S = 1.0
NEAR_M = 0.03  # above the table; from there contact is looked for in every step
OFFSETS_S = np.arange(-20, 21) * 0.005
FAR_RAD = 0.03
WORTH = 0.9  # of the squared error; an offset that leaves more is none
DISPROVED_RAD = 0.05  # how far beyond a stop a joint must stand for the stop to be wrong


@dataclass(frozen=True)
class MotionReplay:
    """One motion as the simulator does it.

    Attributes:
        name: The motion's.
        time: [T] s.
        simulated, measured, command: [T, J] rad.
        offset_s: By how much later than the simulated arm the real one answered, taken out of ``simulated``.
        table: Whether a table was there.
    """

    name: str
    time: Array
    simulated: Array
    measured: Array
    command: Array
    offset_s: float = 0.0
    table: bool = False

    @property
    def rmse(self) -> Array:
        """Root of the mean squared position error over the motion [J] rad."""
        return np.sqrt(((self.simulated - self.measured) ** 2).mean(axis=0))

    @property
    def lag_rmse(self) -> Array:
        """The same for "measured = commanded" [J] rad: what a simulator must beat."""
        return np.sqrt(((self.command - self.measured) ** 2).mean(axis=0))

    def worst_window(self) -> tuple[float, float]:
        """Start (s) of the worst second and the root mean squared error over all joints in it (rad)."""
        squared = ((self.simulated - self.measured) ** 2).mean(axis=1)
        # A row counts for the time until the next one: rows may come in bursts.
        total = np.concatenate(([0.0], np.cumsum(squared[:-1] * np.diff(self.time))))
        length = min(WINDOW_S, float(self.time[-1]))
        starts = self.time[self.time <= self.time[-1] - length + 1e-9]
        mean = (np.interp(starts + length, self.time, total) - np.interp(starts, self.time, total)) / length
        at = int(mean.argmax())
        return float(starts[at]), float(np.sqrt(mean[at]))


def replay(
    arm: Arm, logs: Sequence[JointLog], parameters: Mapping[str, Array], table: Table | None = None
) -> list[MotionReplay]:
    """Drive the arm in PyBullet with every log's commands, open loop from its first state.

    Several motions run side by side, each in a robot of its own.

    Args:
        arm: The robot.
        logs: Recordings.
        parameters: Servo quantities [J] by name.
        table: What the arm may press on; left out of a motion whose measured poses go through it.

    Returns:
        One replay a log, in their order.
    """
    lanes = _pack(logs, min(LANES, len(logs)))
    # The servo model carries the arm's weight; a second one would make the motors in Bullet creep.
    world = World(len(lanes), SIM_DT, gravity=NO_GRAVITY)
    try:
        world.load_robots(arm.urdf, fixed_base=True)
        return _run(world, arm, logs, lanes, parameters, table)
    finally:
        world.close()


def _pack(logs: Sequence[JointLog], count: int) -> list[list[int]]:
    """Motions of every lane, so that all lanes take about as long."""
    lanes: list[list[int]] = [[] for _ in range(count)]
    length = np.zeros(count)
    for index in sorted(range(len(logs)), key=lambda i: -logs[i].time[-1]):
        lane = int(length.argmin())
        lanes[lane].append(index)
        length[lane] += logs[index].time[-1]
    return lanes


def references(log: JointLog, dead_time: Array, low: Array, high: Array, dt: float) -> Array:
    """References of the controller in every step [S, J] rad: commands held, late by ``dead_time`` [J], clipped.

    Commands change between steps; a step takes their mean over its length.
    """
    steps = int(np.ceil(log.time[-1] / dt)) + 1
    # Integral of the held command, interpolated: differences are exact means over any interval.
    integral = np.concatenate((np.zeros((1, log.command.shape[1])), np.diff(log.time)[:, None] * log.command[:-1]))
    integral = integral.cumsum(axis=0)
    edges = dt * np.arange(steps + 1)
    result = np.empty((steps, log.command.shape[1]))
    for joint in range(log.command.shape[1]):
        at = edges - dead_time[joint]
        total = np.interp(at, log.time, integral[:, joint])
        total += np.minimum(at, 0.0) * log.command[0, joint]  # before the first command: the first command
        total += np.maximum(at - log.time[-1], 0.0) * log.command[-1, joint]
        result[:, joint] = np.diff(total) / dt
    return np.clip(result, low, high)


def stops_of(arm: Arm, log: JointLog, low: Array, high: Array) -> tuple[Array, Array]:
    """The stops [J] rad that hold for one motion.

    A joint that stands beyond a stop in the first row disproves it; for that motion the description's end, or where
    the joint stands if that is further, takes its place.
    """
    first, described = log.position[0], arm.described()
    return (
        np.where(first < low - DISPROVED_RAD, np.minimum(described["low_stop"], first), low),
        np.where(first > high + DISPROVED_RAD, np.maximum(described["high_stop"], first), high),
    )


def start_velocity(log: JointLog) -> Array:
    """Velocity [J] rad/s at the first row, from the first 60 ms of positions."""
    rows = max(2, int(np.searchsorted(log.time, 0.06)))
    return np.polyfit(log.time[:rows], log.position[:rows], 1)[0]


def align(motion: MotionReplay) -> MotionReplay:
    """The replay with the recording's own time offset taken out: one number a recording, where it explains much.

    Recorders start their clocks for commands and measurements apart. Servos do not depend on the time of day, so the
    simulated motion is only shifted. Rows far off, as in contact, count no more than ``FAR_RAD``.
    """
    error = [np.minimum(np.abs(_shifted(motion, s) - motion.measured), FAR_RAD) for s in OFFSETS_S]
    loss = [float((e * e).mean()) for e in error]
    best = int(np.argmin(loss))
    if loss[best] > WORTH * loss[len(OFFSETS_S) // 2]:
        return motion
    return replace(motion, simulated=_shifted(motion, OFFSETS_S[best]), offset_s=float(OFFSETS_S[best]))


def _shifted(motion: MotionReplay, offset_s: float) -> Array:
    return np.stack([np.interp(motion.time - offset_s, motion.time, column) for column in motion.simulated.T], axis=1)


def _run(
    world: World,
    arm: Arm,
    logs: Sequence[JointLog],
    lanes: list[list[int]],
    parameters: Mapping[str, Array],
    table: Table | None,
) -> list[MotionReplay]:
    count, joints = len(lanes), len(arm.joints)
    dead_time, low, high = (parameters[name] for name in ("dead_time", "low_stop", "high_stop"))
    known = [references(log, dead_time, *stops_of(arm, log, low, high), SIM_DT) for log in logs]
    tracks = [np.empty((len(reference) + 1, joints)) for reference in known]
    wide = {name: np.tile(values, (count, 1)) for name, values in parameters.items()}
    servo = Servo(wide, np.zeros((count, joints)), np.zeros((count, joints)), SIM_DT)
    torque = 10.0 * parameters["stall_torque"]  # the servo model limits torque; the motor only follows it
    waiting = [list(reversed(lane)) for lane in lanes]
    current, step = [-1] * count, [0] * count
    reference, gravity = np.zeros((count, joints)), np.zeros((count, joints))
    position = np.zeros((count, joints))
    lowest = LowestPoint(arm) if table else None
    stands = tables_of(lowest, logs, table) if lowest else np.zeros(len(logs))
    load, on, height = np.zeros((count, joints)), np.zeros(count), np.inf
    tick = 0
    while any(waiting) or any(index >= 0 for index in current):
        # Motions start when gravity is due, so that their replay does not depend on what else is replayed.
        due = tick % GRAVITY_EVERY == 0
        for lane in range(count):
            if current[lane] >= 0 and step[lane] == len(known[current[lane]]):
                current[lane] = -1
            if current[lane] >= 0 or not due or not waiting[lane]:
                continue
            index = current[lane] = waiting[lane].pop()
            step[lane], on[lane] = 0, stands[index]
            row, start = np.array([lane]), logs[index].position[:1]
            world.write_joints(row, start, start_velocity(logs[index])[None])
            servo.place(row, start, start_velocity(logs[index])[None])
            tracks[index][0] = position[lane] = start[0]
        for lane, index in enumerate(current):
            if index >= 0:
                reference[lane] = known[index][step[lane]]
        if due:
            gravity = arm.chain.gravity_torque(position)
        if lowest and table and (due or height < NEAR_M):
            load, height = lowest.load(position, table, on)
        servo.step(reference, gravity, load)
        world.drive_joints(servo.velocity, torque)
        world.step()
        position, velocity = world.read_joints()
        servo.observe(slice(None), position, velocity)
        tick += 1
        for lane, index in enumerate(current):
            if index >= 0:
                step[lane] += 1
                tracks[index][step[lane]] = servo.position[lane]
    return [_motion(log, track, bool(there)) for log, track, there in zip(logs, tracks, stands, strict=True)]


def _motion(log: JointLog, track: Array, table: bool) -> MotionReplay:
    grid = SIM_DT * np.arange(len(track))
    simulated = np.stack([np.interp(log.time, grid, column) for column in track.T], axis=1)
    return MotionReplay(log.name, log.time, simulated, log.position, log.command, table=table)


def pooled(motions: Sequence[MotionReplay], values: Sequence[Array]) -> Array:
    """Root mean square [J] over all rows of all motions of a value [J] a motion."""
    rows = np.array([len(m.time) for m in motions], dtype=np.float64)
    return np.sqrt((rows[:, None] * np.array(values) ** 2).sum(axis=0) / rows.sum())


def summary(arm: Arm, motions: Sequence[MotionReplay]) -> dict[str, Any]:
    """Figures of a replay, ready for JSON.

    Returns:
        ``per_joint`` (the robot's joint names → root mean square over all rows of all motions, rad),
        ``mean_joint_rmse_rad`` (the mean of ``per_joint``), ``mean_over_motions_rad`` (the mean over motions of each
        motion's mean joint error, every motion counting the same), ``measured_is_commanded_rad`` (as
        ``mean_joint_rmse_rad``, of a simulator that does what is commanded), and ``per_motion`` with the same figures
        of one motion and its time offset, s (what :func:`align` took out).
    """
    rmse, lag = [m.rmse for m in motions], [m.lag_rmse for m in motions]
    per_joint = pooled(motions, rmse)
    per_motion = {}
    for motion, own, other in zip(motions, rmse, lag, strict=True):
        at, error = motion.worst_window()
        per_motion[motion.name] = {
            "mean_joint_rmse_rad": float(own.mean()),
            "measured_is_commanded_rad": float(other.mean()),
            "per_joint": dict(zip(arm.joints, own.tolist(), strict=True)),
            "worst_second": {"from_s": at, "rmse_rad": error},
            "duration_s": float(motion.time[-1]),
            "time_offset_s": motion.offset_s,
        }
    return {
        "mean_joint_rmse_rad": float(per_joint.mean()),
        "mean_over_motions_rad": float(np.mean([own.mean() for own in rmse])),
        "measured_is_commanded_rad": float(pooled(motions, lag).mean()),
        "per_joint": dict(zip(arm.joints, per_joint.tolist(), strict=True)),
        "per_motion": per_motion,
    }
