"""An arm that moves through view poses while images are collected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim2real.cli.console import console
from sim2real.cli.motion import DriverName, DriverSettings, Yes, driver_values
from sim2real.errors import CollectionError, ConfigError

if TYPE_CHECKING:
    from robot_drivers.driver import RobotDriver
    from sim2real.robots.arm import Arm


@dataclass(frozen=True)
class Drive:
    """Options of the motion through view poses; ``driver`` is None where nothing is moved."""

    driver: str | None
    driver_set: list[str] | None
    views: int
    reach: float
    clearance: float
    speed: float
    yes: bool
    seed: int


def drive_options(
    driver: DriverName = None,
    driver_set: DriverSettings = None,
    views: Annotated[int, typer.Option(min=2, help="With --driver: poses to stop at.")] = 20,
    reach: Annotated[float, typer.Option(min=0.05, max=1.0, help="Fraction of the joints' ranges that is used.")] = 0.6,
    clearance: Annotated[float, typer.Option(help="Height kept above the table, m.")] = 0.05,
    speed: Annotated[float, typer.Option(min=0.05, help="Largest joint speed, rad/s.")] = 0.8,
    yes: Yes = False,
    seed: int = 0,
) -> Drive:
    """Options of a collection that moves an arm."""
    return Drive(driver, driver_set, views, reach, clearance, speed, yes, seed)


class MovingArm:
    """A connected arm, its motion, and its joint positions while it moves.

    Args:
        robot: Connected driver, not armed.
        arm: The robot.
        drive: Options.

    Raises:
        ConfigError: No safe motion was found.
    """

    def __init__(self, robot: RobotDriver, arm: Arm, drive: Drive) -> None:
        from calibration.collect.view_poses import plan_views

        self._robot, self._arm, self._drive = robot, arm, drive
        self._motion = plan_views(
            arm.chain, arm.spec, arm.ee, arm.rest, self._positions()[1], drive.views, drive.reach, drive.clearance,
            drive.speed, seed=drive.seed,
        )  # fmt: skip

    def ask(self) -> None:
        """Show the ranges, and ask before anything moves.

        Raises:
            Abort: The answer is no.
        """
        from calibration.collect.view_poses import joint_ranges

        for joint, (low, high) in joint_ranges(self._motion, self._arm.joints).items():
            console.print(f"  {joint:15s} {low:+.2f} .. {high:+.2f} rad")
        poses, seconds = len(self._motion.views), self._motion.time[-1]
        question = (
            f"The arm moves through these ranges to {poses} poses for {seconds:.0f} s. Only the table "
            "below it is known, nothing around it. Is its space clear, your hand at the switch?"
        )
        if not self._drive.yes and not typer.confirm(question):
            raise typer.Abort

    def run(self, put: Callable[[float, Any], None], folder: Path, watch: Callable[[], bool]) -> None:
        """Arm, stream the motion, and keep what was sent beside the candidates; ended early, the arm holds.

        Args:
            put: Takes stamps (s) and joint positions [J] rad at twice the control rate, in a thread.
            folder: Of the candidates.
            watch: Called now and then; True ends the motion.
        """
        from calibration.collect.publish import MOTION
        from sim2real.deploy.record import record

        def on_progress(*_: float) -> None:
            if watch():
                raise KeyboardInterrupt

        folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.with_name(f"{folder.name}.{MOTION}")
        with self._read_joints(put):
            self._robot.arm(True)
            try:
                record(self._robot, self._arm.joints, self._motion.time, self._motion.command, log, on_progress)
            except KeyboardInterrupt:
                console.print("Stopped; the arm holds.")
            finally:
                if folder.is_dir() and log.exists():
                    log.replace(folder / MOTION)

    def _positions(self) -> tuple[float, Any]:
        """Stamp by the system's clock, s, which ROS 2 stamps images with; and joint positions [J] rad."""
        import numpy as np

        state = self._robot.read()
        known = dict(zip(state.joint_names, state.joint_pos.tolist(), strict=True))
        return state.stamp_s + time.time() - time.monotonic(), np.array([known[joint] for joint in self._arm.joints])

    @contextmanager
    def _read_joints(self, put: Callable[[float, Any], None]) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.5 / self._arm.spec.control_rate_hz):
                put(*self._positions())

        thread = threading.Thread(target=run, name="read_joints", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def moving(drive: Drive, arm: Arm | None) -> Iterator[MovingArm | None]:
    """Connect to the arm and plan its motion; None where there is no driver."""
    from robot_drivers import load_driver
    from robot_drivers.limits import DriverError

    if (name := drive.driver) is None:
        yield None
        return
    assert arm is not None
    try:
        driver = load_driver(name, **driver_values(drive.driver_set or []))
        driver.connect()
        try:
            missing = [joint for joint in arm.joints if joint not in driver.read().joint_names]
            if missing:
                raise ConfigError(f"driver '{name}' reports no joints {missing}; is it a driver for '{arm.name}'?")
            yield MovingArm(driver, arm, drive)
        finally:
            driver.disconnect()
    except DriverError as error:
        raise CollectionError(f"driver '{name}': {error}") from error


def robot_of(driver: str) -> str:
    """The robot that a driver is of, by its name."""
    robots = {"so101": "so101", "franka": "fr3"}
    found = next((robot for start, robot in robots.items() if driver.startswith(start)), None)
    if found is None:
        raise ConfigError(f"give --robot: it is not known what driver '{driver}' drives")
    return found
