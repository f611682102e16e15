"""Commands about recordings of real robots: replay, identify, check-joints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import JsonFile, console, progress_bars, save_json, stage_reporter
from sim2real.cli.mocap import MocapFiles, mocap_of, show_gap
from sim2real.cli.motion import DriverName, DriverSettings, Yes, record_motion
from sim2real.cli.options import takes
from sim2real.cli.torques import Torques, identify_by_torques, torques_of
from sim2real.errors import ConfigError
from sim2real.files import lock_output, must_be_writable

if TYPE_CHECKING:
    from sim2real.identify.arm.check import JointCheck
    from sim2real.recordings.logs import JointLog, Topics
    from sim2real.robots.arm import Arm

app = typer.Typer()

LIVE_S, LIVE_RAD_S = 90.0, 0.5  # a short and slow motion shows joints that are not what they are called
MAPPING_HELP = "Correct the joints with what 'sim2real check-joints' wrote; arms only."
LOGS_HELP = "Recordings: .npz, .csv, .mcap, rosbag2 folders, LeRobot data sets, or folders of them."
StateTopics = Annotated[
    list[str] | None, typer.Option("--state-topic", help="Topic of measured joint states in bags; repeatable.")
]
CommandTopics = Annotated[
    list[str] | None, typer.Option("--command-topic", help="Topic of joint commands in bags; repeatable.")
]


@app.command()
@takes(mocap_of, "mocap")
def replay(
    mocap: MocapFiles,
    robot: Annotated[str, typer.Argument(help="so101, crazyflie, or a folder with robot.yaml and URDF.")],
    logs: Annotated[list[Path], typer.Argument(help=LOGS_HELP)],
    params: Annotated[Path | None, typer.Option(help="Parameters that 'sim2real identify' wrote.")] = None,
    mapping: Annotated[Path | None, typer.Option(help=MAPPING_HELP)] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page with plots here (.html); arms only.", callback=must_be_writable),
    ] = None,
    state_topic: StateTopics = None,
    command_topic: CommandTopics = None,
    json_file: JsonFile = None,
) -> None:
    """Drive the simulated robot with recorded commands and compare it with what the real one did.

    A joint's error is the root mean square over all rows of all motions (long motions count more) and
    mean_joint_rmse_rad the mean of these over the joints; mean_over_motions_rad lets every motion count the same.
    """
    from sim2real.robots import model_of, robot_folder

    if model_of(folder := robot_folder(robot)) == "arm":
        _replay_arm(folder, logs, params, mapping, report, mocap, topics_of(state_topic, command_topic), json_file)
    elif mocap.files:
        raise ConfigError("--mocap is of arms; a flight log holds its poses itself ('pos', 'quat')")
    else:
        _replay_flights(folder, logs, params, json_file)


def _replay_arm(
    folder: Path,
    logs: list[Path],
    params: Path | None,
    mapping: Path | None,
    report: Path | None,
    mocap: MocapFiles,
    topics: Topics,
    json_file: Path | None,
) -> None:
    from sim2real.evaluate.identification import replay_logs
    from sim2real.robots.arm import Arm

    arm = Arm(folder)
    recordings = _recordings(arm, logs, mapping, topics)
    seen = mocap.read([log.name for log in recordings])
    with console.status(f"replaying {len(recordings)} motions"):
        figures = replay_logs(arm, recordings, params, report, seen)
    _print_errors(figures, "replay in PyBullet, open loop")
    if table := figures["table"]:
        there = f"{table['motions']} of {len(recordings)} motions"
        console.print(f"Table at {1e3 * table['height_m']:.0f} mm in the base's frame, in {there}")
    offsets = {n: row["time_offset_s"] for n, row in figures["per_motion"].items() if row["time_offset_s"]}
    if offsets:
        told = ", ".join(f"{name} {1e3 * offset:+.0f} ms" for name, offset in offsets.items())
        before = figures["without_time_offsets_rad"]
        console.print(f"Time offsets taken out: {told} (with them left in: {before:.4f} rad)")
    if figures["mocap"]:
        show_gap(figures["mocap"])
    save_json(json_file, figures)
    if report:
        console.print(f"Report: {report}")


def topics_of(state: list[str] | None, command: list[str] | None) -> Topics:
    """Topics as the commands' options give them."""
    from sim2real.recordings.logs import Topics

    return Topics(tuple(state or ()), tuple(command or ()))


def _recordings(arm: Arm, logs: list[Path], mapping: Path | None, topics: Topics) -> list[JointLog]:
    from sim2real.identify.arm.mapping import read_corrected

    recordings = read_corrected(arm, logs, mapping, topics)
    _remark(arm, recordings)
    return recordings


def _remark(arm: Arm, recordings: list[JointLog]) -> None:
    from sim2real.identify.arm.limits import remarks

    for remark in remarks(arm, recordings):
        console.print(f"[yellow]{escape(remark)}")


def _replay_flights(folder: Path, logs: list[Path], params: Path | None, json_file: Path | None) -> None:
    from sim2real.evaluate.flight_identification import airframe, replay_flights
    from sim2real.recordings.flights import read_flight_logs

    robot = airframe(folder, None).name  # says so if it is no quadrotor either
    if params is None:
        raise ConfigError(f"give --params; 'sim2real identify {folder.name} LOG … --out params.yaml' writes them")
    figures = replay_flights(robot, read_flight_logs(logs), params)
    _print_flights(figures["per_log"])
    _print_remarks(figures["remarks"])
    save_json(json_file, figures)


@app.command()
@takes(torques_of, "torques")
def identify(
    torques: Torques,
    robot: Annotated[str, typer.Argument(help="so101, crazyflie, or a folder with robot.yaml and URDF.")],
    logs: Annotated[list[Path], typer.Argument(help=LOGS_HELP)],
    out: Annotated[
        Path, typer.Option(help="Parameters file to write; a page goes beside it.", callback=must_be_writable)
    ] = Path("params.yaml"),
    folds: Annotated[int, typer.Option(min=2, help="Kinds of motion for cross-validation; arms only.")] = 5,
    generations: Annotated[int, typer.Option(min=1, help="Of the search; arms only.")] = 120,
    mapping: Annotated[Path | None, typer.Option(help=MAPPING_HELP)] = None,
    mass: Annotated[float | None, typer.Option(help="kg as flown; drones only, the bare drone's by default.")] = None,
    seed: int = 0,
    state_topic: StateTopics = None,
    command_topic: CommandTopics = None,
    json_file: JsonFile = None,
) -> None:
    """Fit the robot's simulator to recordings; an interrupted fit of an arm goes on when it is run again."""
    from sim2real.robots import model_of, robot_folder

    folder = robot_folder(robot)
    with lock_output(out):
        if model_of(folder) == "arm":
            topics = topics_of(state_topic, command_topic)
            if torques.unit:
                _identify_torques(folder, logs, out, folds, mapping, torques, topics, json_file)
                return
            _identify_arm(folder, logs, out, folds, generations, mapping, seed, topics, json_file)
        else:
            _identify_flights(folder, logs, out, mass, seed, json_file)


def _identify_arm(
    folder: Path,
    logs: list[Path],
    out: Path,
    folds: int,
    generations: int,
    mapping: Path | None,
    seed: int,
    topics: Topics,
    json_file: Path | None,
) -> None:
    from sim2real.evaluate.identification import identify_logs
    from sim2real.robots.arm import Arm

    arm = Arm(folder)
    recordings = _recordings(arm, logs, mapping, topics)
    with progress_bars() as progress:
        figures = identify_logs(arm, recordings, out, folds, generations, seed, stage_reporter(progress))
    _print_errors(figures["held_out"], "kinds of motion that the fit had not seen")
    worst = figures["held_out"]["worst_kind"]
    console.print(f"Worst kind: {worst['mean_joint_rmse_rad']:.4f} rad ({', '.join(worst['motions'])})")
    save_json(json_file, figures)
    console.print(f"Parameters: {out}\nReport: {figures['report']}")


def _identify_torques(
    folder: Path,
    logs: list[Path],
    out: Path,
    folds: int,
    mapping: Path | None,
    torques: Torques,
    topics: Topics,
    json_file: Path | None,
) -> None:
    from sim2real.robots.arm import Arm

    if mapping:
        raise ConfigError("a mapping corrects positions, not torques; correct the recordings and leave --mapping out")
    identify_by_torques(Arm(folder), logs, out, folds, torques, topics, json_file)


def _identify_flights(
    folder: Path, logs: list[Path], out: Path, mass: float | None, seed: int, json_file: Path | None
) -> None:
    from sim2real.evaluate.flight_identification import airframe, identify_flights
    from sim2real.recordings.flights import read_flight_logs

    frame = airframe(folder, mass)
    with progress_bars() as progress:
        report = stage_reporter(progress)
        figures = identify_flights(frame.name, read_flight_logs(logs), frame, out, seed, report)
    table = Table("", "value", "95 % interval", "unit", title=f"{frame.name}, {frame.mass:g} kg")
    for name, entry in figures["parameters"].items():
        row = (name, f"{entry['value']:.5g}", f"{entry['low']:.4g} .. {entry['high']:.4g}", entry["unit"])
        table.add_row(*row, style="" if entry["identified"] else "dim")
    console.print(table)
    if figures["held_out"]:
        _print_flights(figures["held_out"])
    _print_remarks(figures["remarks"])
    save_json(json_file, figures)
    console.print(f"Parameters: {out}\nReport: {figures['report']}")


def _print_remarks(remarks: list[str]) -> None:
    for remark in remarks:
        console.print(f"[yellow]{escape(remark)}")


def _print_flights(rows: dict[str, Any]) -> None:
    posed = {name: row for name, row in rows.items() if "50" in row}
    if posed:
        headings = ("position [m]", "velocity [m/s]", "attitude [rad]", "rate [rad/s]")
        table = Table("flight", "steps", *headings, title="Prediction, steps of 0.01 s")
        for name, row in posed.items():
            for steps, errors in row.items():
                table.add_row(name, steps, *(f"{value:.4f}" for value in errors.values()))
        console.print(table)
    others = {name: row for name, row in rows.items() if name not in posed}
    if others:
        headings = ("lift near hover, error", "lift, RMSE [m/s²]", "its spread [m/s²]", "compared, in the air [s]")
        table = Table("flight", *headings, title="Thrust")
        for name, row in others.items():
            lift, rmse, std = row["hover_lift_error"], row["lift_rmse_m_s2"], row["lift_spread_m_s2"]
            seconds = f"{row['in_the_air_s']:.1f} of {row['recorded_s']:.1f}"
            table.add_row(name, f"{lift:+.1%}", f"{rmse:.2f}", f"{std:.2f}", seconds)
        console.print(table)


@app.command(name="check-joints")
def check_joints_command(
    robot: Annotated[str, typer.Argument(help="so101, or a folder with robot.yaml and URDF.")],
    logs: Annotated[list[Path] | None, typer.Argument(help=LOGS_HELP + " With --driver: where to record to (.csv).")],
    driver: DriverName = None,
    driver_set: DriverSettings = None,
    yes: Yes = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the corrected mapping here (.yaml).", callback=must_be_writable)
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="Apply such a mapping first.")] = None,
    state_topic: StateTopics = None,
    command_topic: CommandTopics = None,
    json_file: JsonFile = None,
) -> None:
    """Joint doctor: find swapped, flipped, shifted or scaled joints and a wrong rate, in recordings or live."""
    from sim2real.robots import load_arm

    arm = load_arm(robot)
    files = _files_to_check(arm, logs, driver, driver_set, yes)
    found = _checked(arm, files, mapping, topics_of(state_topic, command_topic))
    _show_check(found)
    save_json(json_file, found.summary())
    if out:
        found.save(out)
        console.print(f"Mapping: {out}")
    if found.faults:
        raise typer.Exit(1)


def _files_to_check(
    arm: Arm, logs: list[Path] | None, driver: str | None, driver_set: list[str] | None, yes: bool
) -> list[Path]:
    """Recordings; with a driver, the one that is made now."""
    if not logs:
        raise ConfigError("give recordings; or --driver and one .csv to record to")
    if driver:
        if len(logs) != 1:
            raise ConfigError("with --driver, give one .csv to record to")
        record_motion(arm, driver, driver_set, logs[0], yes, joints=arm.joints, duration_s=LIVE_S, speed=LIVE_RAD_S)
    return logs


def _checked(arm: Arm, files: list[Path], mapping: Path | None, topics: Topics) -> JointCheck:
    from sim2real.identify.arm.check import check_joints
    from sim2real.identify.arm.limits import refuse_degrees
    from sim2real.identify.arm.mapping import read_corrected

    recordings = read_corrected(arm, files, mapping, topics, any_unit=True)
    found = check_joints(arm, recordings)
    refuse_degrees(arm, recordings, found)
    _remark(arm, recordings)
    return found


def _show_check(found: JointCheck) -> None:
    headings = ("joint", "measured / commanded", "zero [rad]", "late by [s]", "verdict")
    table = Table(*headings, title=f"{found.recordings} recordings")
    for joint in found.joints:
        figures = (
            f"{joint.slope:.3f} ± {joint.within:.3f}",
            f"{joint.offset:+.3f} ± {2 * joint.offset_std:.3f}",
            "" if math.isnan(joint.lag_s) else f"{joint.lag_s:.2f}",
        )
        style = "red" if joint.faults else "yellow" if joint.remark else ""
        table.add_row(joint.joint, *(figures if joint.judged else ("", "", "")), joint.verdict, style=style)
    console.print(table)
    for sentence in found.late:
        console.print(f"[red]{escape(sentence)}")
    if found.clock:
        console.print(f"[{'yellow' if found.time_scale == 1.0 else 'red'}]{found.clock}")


def _print_errors(figures: dict[str, Any], title: str) -> None:
    table = Table("motion", "mean joint error [rad]", "measured = commanded", title=f"Root mean square, {title}")
    motions = figures["per_motion"].items()
    for name, row in sorted(motions, key=lambda item: -float(item[1]["mean_joint_rmse_rad"])):
        own, other = row["mean_joint_rmse_rad"], row["measured_is_commanded_rad"]
        table.add_row(name, f"{own:.4f}", f"{other:.4f}", style="red" if own > other else "")
    table.add_section()
    for joint, value in figures["per_joint"].items():
        table.add_row(f"all motions, {joint}", f"{value:.4f}", "")
    own, other = figures["mean_joint_rmse_rad"], figures["measured_is_commanded_rad"]
    table.add_row("[bold]all motions, mean joint", f"[bold]{own:.4f}", f"[bold]{other:.4f}")
    console.print(table)
