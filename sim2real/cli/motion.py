"""Commands that make motions and move robots: excite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim2real.cli.console import console, progress_bars, stage_reporter
from sim2real.errors import ConfigError
from sim2real.files import must_be_writable

if TYPE_CHECKING:
    from sim2real.identify.arm.excite import Excitation
    from sim2real.robots.arm import Arm

app = typer.Typer()

PICTURES = (".png", ".svg", ".pdf")

DriverName = Annotated[str | None, typer.Option("--driver", help="Move this robot: a driver's name, like so101_twin.")]
DriverSettings = Annotated[list[str] | None, typer.Option("--driver-set", help="A driver's setting: key=value.")]
Yes = Annotated[bool, typer.Option("--yes", help="Move without asking.")]


@app.command()
def excite(
    robot: Annotated[str, typer.Argument(help="so101, or a folder with robot.yaml and URDF.")],
    out: Annotated[
        Path, typer.Option(help="CSV of commands: time, des_dof_pos.JOINT …", callback=must_be_writable)
    ] = Path("excitation.csv"),
    joints: Annotated[
        list[str] | None, typer.Option("--joint", help="Joint that moves; repeatable, all by default.")
    ] = None,
    duration: Annotated[float, typer.Option(min=20.0, help="About how long, s.")] = 360.0,
    speed: Annotated[float, typer.Option(min=0.05, help="Largest speed, rad/s.")] = 1.5,
    acceleration: Annotated[float, typer.Option(min=0.1, help="Largest acceleration, rad/s².")] = 8.0,
    clearance: Annotated[float, typer.Option(min=0.0, help="Height kept above the table, m.")] = 0.03,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of it (.png, .svg, .pdf).", callback=must_be_writable)
    ] = None,
    driver: DriverName = None,
    driver_set: DriverSettings = None,
    log: Annotated[
        Path | None, typer.Option(help="With --driver: the recording (.csv).", callback=must_be_writable)
    ] = None,
    yes: Yes = False,
    seed: int = 0,
) -> None:
    """Make a safe motion for identify, from the rest pose; with --driver, from where the arm is, and record it."""
    from sim2real.robots import load_arm

    arm = load_arm(robot)
    if plot and plot.suffix.lower() not in PICTURES:
        raise ConfigError(f"--plot {plot}: pictures are {', '.join(PICTURES)}")
    settings = {"joints": joints or arm.joints, "duration_s": duration, "speed": speed, "acceleration": acceleration}
    made = _make(arm, driver, driver_set, log, yes, clearance_m=clearance, seed=seed, **settings)
    made.save(out, arm.joints)
    console.print(f"{made.time[-1]:.0f} s at {arm.spec.control_rate_hz:g} Hz: {out}")
    if plot:
        _plot(plot, arm, made)


def _make(
    arm: Arm, driver: str | None, driver_set: list[str] | None, log: Path | None, yes: bool, **excitation: Any
) -> Excitation:
    from sim2real.identify.arm.excite import excite as make

    if (driver is None) != (log is None):
        raise ConfigError("--driver and --log go together: through what to move, and where to record to")
    return record_motion(arm, driver, driver_set, log, yes, **excitation) if driver and log else make(arm, **excitation)


def _plot(path: Path, arm: Arm, made: Excitation) -> None:
    from sim2real.evaluate.figures import plot_motion

    plot_motion(path, arm.joints, made.time, made.command)
    console.print(f"Picture: {path}")


def record_motion(
    arm: Arm, name: str, settings: list[str] | None, log: Path, yes: bool, **excitation: Any
) -> Excitation:
    """Make an excitation from where the arm is, ask, move the arm through it and write what it did."""
    import numpy as np

    from robot_drivers import load_driver
    from robot_drivers.limits import DriverError
    from sim2real.deploy.record import record
    from sim2real.identify.arm.excite import excite as make

    try:
        robot = load_driver(name, **driver_values(settings or []))
        robot.connect()
        try:
            state = robot.read()
            known = dict(zip(state.joint_names, state.joint_pos.tolist(), strict=True))
            missing = [joint for joint in arm.joints if joint not in known]
            if missing:
                raise ConfigError(f"driver '{name}' reports no joints {missing}; is it a driver for '{arm.name}'?")
            made = make(arm, start=np.array([known[joint] for joint in arm.joints]), **excitation)
            lows, highs = made.command.min(axis=0), made.command.max(axis=0)
            for joint, low, high in zip(arm.joints, lows, highs, strict=True):
                console.print(f"  {joint:15s} {low:+.2f} .. {high:+.2f} rad")
            seconds = made.time[-1]
            question = (
                f"The arm moves through these ranges for {seconds:.0f} s. Is its space clear, your hand at the switch?"
            )
            if not yes and not typer.confirm(question):
                raise typer.Abort
            robot.arm(True)
            with progress_bars() as progress:
                report = stage_reporter(progress)
                rows = record(
                    robot, arm.joints, made.time, made.command, log,
                    lambda done, whole: report("recording, s", int(done), int(whole), {}),
                )  # fmt: skip
            console.print(f"{rows} rows: {log}")
            return made
        finally:
            robot.disconnect()
    except DriverError as error:
        raise ConfigError(f"driver '{name}': {error}") from error


def driver_values(assignments: list[str]) -> dict[str, Any]:
    """A driver's settings from ``key=value``, with values as YAML has them."""
    import yaml

    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"'{assignment}' is no key=value")
        result[key] = yaml.safe_load(value)
    return result
