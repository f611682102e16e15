"""Commands that collect real images: live, from a bag; and export them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import JsonFile, console, progress_bars, save_json
from sim2real.cli.motion import DriverName, DriverSettings, Yes, driver_values
from sim2real.errors import CollectionError, ConfigError

if TYPE_CHECKING:
    from calibration.collect.collector import Collector, Wanted
    from calibration.collect.feed import Feed
    from calibration.collect.topics import Topics
    from calibration.collect.views import Gates
    from robot_drivers.driver import RobotDriver
    from sim2real.robots.arm import Arm
    from sim2real.runtime.camera import CameraCalibration

app = typer.Typer(no_args_is_help=True, help="Collect real images with what the robot measured at the same moment.")

Out = Annotated[Path, typer.Argument(help="Folder of the dataset to make.")]
Image = Annotated[str, typer.Option(metavar="TOPIC", help="Images; the only image topic by default.")]
Info = Annotated[str, typer.Option(metavar="TOPIC", help="CameraInfo; the one beside the images by default.")]
Joints = Annotated[str, typer.Option(metavar="TOPIC", help="JointState; the only one by default.")]
EePose = Annotated[str | None, typer.Option(metavar="TOPIC", help="End effector's PoseStamped in the base frame.")]
NoInfo = Annotated[bool, typer.Option("--no-info", help="Record without a calibration.")]
NoJoints = Annotated[bool, typer.Option("--no-joints", help="Record without joint positions.")]
CameraFile = Annotated[Path | None, typer.Option("--camera", help="Calibration file, in place of CameraInfo.")]
RobotName = Annotated[
    str | None, typer.Option(help="so101, fr3 or a folder: its joints are recorded, and its end effector's pose.")
]
Count = Annotated[int, typer.Option(min=0, help="Views to keep, spread over the recording; 0 keeps all that pass.")]
Everything = Annotated[bool, typer.Option("--all", help="Keep every frame: no gates, no thinning out.")]
Blur = Annotated[float | None, typer.Option(min=0.0, max=0.99, help="Least sharpness, of what sharp frames have.")]
Bright = Annotated[float | None, typer.Option(min=0.001, max=1.0, help="Largest share of white pixels.")]
Dark = Annotated[float | None, typer.Option(min=0.001, max=1.0, help="Largest share of black pixels.")]
What = Annotated[str, typer.Option(help="What the images show; the title of the dataset's card.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a recording that was broken off.")]


@app.command("live")
def live_command(
    out: Out,
    image: Image = "",
    info: Info = "",
    joints: Joints = "",
    ee_pose: EePose = None,
    no_info: NoInfo = False,
    no_joints: NoJoints = False,
    camera: CameraFile = None,
    robot: RobotName = None,
    count: Count = 200,
    everything: Everything = False,
    blur: Blur = None,
    bright: Bright = None,
    dark: Dark = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Stop after so long; 0: at Ctrl-C.")] = 0.0,
    wait: Annotated[float, typer.Option(min=0.0, help="How long to wait for the topics, s.")] = 10.0,
    driver: DriverName = None,
    driver_set: DriverSettings = None,
    views: Annotated[int, typer.Option(min=2, help="With --driver: poses to stop at.")] = 20,
    reach: Annotated[float, typer.Option(min=0.05, max=1.0, help="Share of the joints' ranges that is used.")] = 0.6,
    clearance: Annotated[float, typer.Option(help="Height kept above the table, m.")] = 0.05,
    speed: Annotated[float, typer.Option(min=0.05, help="Largest joint speed, rad/s.")] = 0.8,
    yes: Yes = False,
    seed: int = 0,
    what: What = "",
    resume: Resume = False,
    json_file: JsonFile = None,
) -> None:
    """Record from ROS 2 topics; with --driver, while the arm moves through view poses (it asks first)."""
    try:
        import rclpy  # noqa: F401

        from calibration.collect.collector import Wanted
        from calibration.collect.node import Listening
        from calibration.collect.partial import refuse_existing
        from calibration.collect.topics import Topics
    except ImportError as error:
        raise CollectionError(f"live images need ROS 2 and OpenCV ({error}); see 'sim2real doctor'") from error
    refuse_existing(out, resume)
    arm, known = _arm(robot or (_robot_of(driver) if driver else None)), _camera(camera)
    asked = Topics(
        image,
        None if no_info or known is not None else info,
        None if no_joints or driver else joints,
        None if ee_pose is None else ee_pose,
    )
    with _driven(driver, driver_set, arm) as moved, Listening() as listening:
        topics = listening.node.find(asked, wait)
        names = list(arm.joints) if arm and (topics.joints or driver) else []
        if topics.joints and arm is None:
            names = listening.node.first_joint_names(topics.joints, wait)
        wanted = Wanted(out, count, _gates(everything, blur, bright, dark), what, _source(topics), tuple(names))
        motion = None if moved is None or arm is None else _plan(arm, moved, views, reach, clearance, speed, seed)
        if arm is not None and motion is not None:
            _ask(arm, motion, yes)
        collector, feed = _start(wanted, resume, known, topics, arm, no_info)
        with closing(collector), _stopping() as stopped, _display(collector) as show:
            listening.start_feeding(feed, topics)
            for topic in listening.node.best_effort:
                console.print(f"[yellow]{topic} is published with best effort: what DDS loses is not sent again.")

            def watch() -> bool:
                listening.check()
                show()
                return stopped.is_set()

            if moved is not None and arm is not None and motion is not None:
                with _read_joints(moved, arm, listening.node.put_joints):
                    _move(moved, arm, motion, collector.partial, watch)
                    listening.stop_feeding()
            else:
                until = time.monotonic() + seconds if seconds else float("inf")
                while time.monotonic() < until and not watch():
                    stopped.wait(0.1)
                listening.stop_feeding()
            show()
        _finish(collector, json_file)


@app.command("bag")
def bag_command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder or .mcap file.")],
    out: Out,
    image: Image = "",
    info: Info = "",
    joints: Joints = "",
    ee_pose: EePose = None,
    no_info: NoInfo = False,
    no_joints: NoJoints = False,
    camera: CameraFile = None,
    robot: RobotName = None,
    count: Count = 200,
    everything: Everything = False,
    blur: Blur = None,
    bright: Bright = None,
    dark: Dark = None,
    what: What = "",
    json_file: JsonFile = None,
) -> None:
    """Take images out of a recorded bag; ROS 2 is not needed."""
    from calibration.collect.collector import Wanted
    from calibration.collect.feed import first_joint_names, play
    from calibration.collect.topics import Topics, find_topics
    from sim2real.recordings.bags import open_bag

    arm, known = _arm(robot), _camera(camera)
    asked = Topics(image, None if no_info or known is not None else info, None if no_joints else joints, ee_pose)
    with open_bag(bag) as recorded:
        topics = find_topics(asked, recorded.types, str(bag))
        names = list(arm.joints) if arm and topics.joints else []
        if topics.joints and arm is None:
            names = first_joint_names(recorded, topics.joints)
        wanted = Wanted(out, count, _gates(everything, blur, bright, dark), what, f"{bag.name}: {_source(topics)}",
                        tuple(names))  # fmt: skip
        collector, feed = _start(wanted, False, known, topics, arm, no_info)
        played = False
        try:
            with progress_bars() as progress:
                bar = progress.add_task("messages", total=None, figures="")
                play(recorded, topics, feed, lambda done, whole: progress.update(
                    bar, completed=done, total=whole, figures=f"{collector.kept} candidates"))  # fmt: skip
            played = True
        finally:
            if not played:  # another run reads the bag from its beginning; a part of it is worth nothing
                collector.discard()
    _finish(collector, json_file)


@app.command("export")
def export_command(
    dataset: Annotated[Path, typer.Argument(help="Dataset that 'collect' made.")],
    lerobot: Annotated[Path, typer.Option(help="Folder of the LeRobot v3 dataset to make.")],
    fps: Annotated[int | None, typer.Option(min=1, help="Nominal rate; from the stamps by default.")] = None,
    camera: Annotated[str, typer.Option(help="Name of the camera in observation.images.NAME.")] = "camera",
    robot_type: Annotated[str | None, typer.Option(help="Name of the robot in info.json.")] = None,
) -> None:
    """Export a dataset for LeRobot (format v3.0: parquet with embedded PNG)."""
    from calibration.collect.lerobot import export_lerobot
    from sim2real.images.dataset import read_dataset

    with progress_bars() as progress:
        bar = progress.add_task("frames", total=None, figures="")
        written = export_lerobot(
            read_dataset(dataset), lerobot, fps, camera, robot_type,
            lambda done, whole: progress.update(bar, completed=done, total=whole),
        )  # fmt: skip
    console.print(
        f"{written['total_frames']} frames, {written['total_episodes']} episodes, {written['fps']} Hz: {lerobot}"
    )


def _start(
    wanted: Wanted,
    resume: bool,
    camera: CameraCalibration | None,
    topics: Topics,
    arm: Arm | None,
    no_info: bool,
) -> tuple[Collector, Feed]:
    from calibration.collect.collector import Collector
    from calibration.collect.feed import Feed

    reach = _reach(arm) if arm is not None and topics.pose is None else None
    collector = Collector(wanted, resume)
    with_joints = bool(wanted.joint_names)
    return collector, Feed(collector, camera, not no_info, with_joints, topics.pose is not None, reach)


def _finish(collector: Collector, json_file: Path | None) -> None:
    from sim2real.images.dataset import read_dataset

    with console.status("choosing views"):
        out = collector.finish()
    dataset = read_dataset(out)
    figures = {
        "images_seen": collector.seen,
        "images_missing": collector.missing,
        "kept": len(dataset),
        "drops": dict(collector.drops.most_common()),
        "ignored": dict(collector.ignored.most_common()),
        "cover_radius": dataset.about.get("cover_radius"),
    }
    table = Table("", "images", title=str(out))
    table.add_row("came", str(collector.seen))
    for reason, number in collector.drops.most_common():
        table.add_row(f"  {escape(reason)}", str(number))
    table.add_row("[bold]kept", f"[bold]{len(dataset)}")
    console.print(table)
    if collector.missing:
        console.print(
            f"[yellow]By their stamps, {collector.missing} more images were lost on the way here. On one "
            "computer, FASTRTPS_DEFAULT_PROFILES_FILE=…/launch/fastdds_images.xml helps, set for both sides."
        )
    for problem, number in collector.ignored.most_common():
        console.print(f"[yellow]{number} times: {escape(problem)}")
    save_json(json_file, figures)
    console.print(f"Card: {out / 'README.md'}")


def _gates(everything: bool, blur: float | None, bright: float | None, dark: float | None) -> Gates | None:
    from calibration.collect.views import Gates

    if everything:
        return None
    given = {"blur": blur, "bright_share": bright, "dark_share": dark}
    return Gates(**{name: value for name, value in given.items() if value is not None})


def _camera(path: Path | None) -> CameraCalibration | None:
    from sim2real.runtime.camera import load_camera

    return None if path is None else load_camera(path)


def _arm(robot: str | None) -> Arm | None:
    if robot is None:
        return None
    from sim2real.robots import robot_folder
    from sim2real.robots.arm import Arm

    return Arm(robot_folder(robot))


def _robot_of(driver: str) -> str:
    """The robot that a driver is of, by its name."""
    robots = {"so101": "so101", "franka": "fr3"}
    found = next((robot for start, robot in robots.items() if driver.startswith(start)), None)
    if found is None:
        raise ConfigError(f"give --robot: it is not known what driver '{driver}' drives")
    return found


def _reach(arm: Arm) -> Callable[[Any], tuple[Any, Any]]:
    from scipy.spatial.transform import Rotation

    def reach(position: Any) -> tuple[Any, Any]:
        origin, rotation = arm.chain.frames(position[None])[arm.ee]
        return origin[0], Rotation.from_matrix(rotation[0]).as_quat()

    return reach


def _source(topics: Topics) -> str:
    return ", ".join(topic for topic in (topics.image, topics.info, topics.joints, topics.pose) if topic)


@contextmanager
def _display(collector: Collector) -> Iterator[Callable[[], None]]:
    """A table that is kept up to date on a terminal, a line every five seconds elsewhere."""
    begin, printed = time.monotonic(), [time.monotonic()]
    before, rate = [time.monotonic(), collector.seen], [0.0]

    def table() -> Table:
        now = time.monotonic()
        if now - before[0] > 1.0:
            rate[0] = (collector.seen - before[1]) / (now - before[0])
            before[:] = [now, collector.seen]
        shown = Table(title=f"{collector.wanted.out}   {now - begin:.0f} s, {rate[0]:.1f} images/s")
        shown.add_column("images")
        shown.add_column("", justify="right")
        shown.add_row("came", str(collector.seen))
        for reason, number in list(collector.drops.most_common()):
            shown.add_row(f"[yellow]{escape(reason)}", str(number))
        goal = f" (of which {collector.wanted.count} will stay)" if collector.wanted.count else ""
        shown.add_row(f"[green]candidates{goal}", str(collector.kept))
        if collector.missing:
            shown.add_row("[red]lost on the way here", str(collector.missing))
        return shown

    if console.is_terminal:
        with Live(table(), console=console, refresh_per_second=5) as screen:
            yield lambda: screen.update(table())
        return

    def line() -> None:
        if time.monotonic() - printed[0] > 5.0:
            printed[0] = time.monotonic()
            console.print(f"{printed[0] - begin:.0f} s: {collector.seen} images, {collector.kept} candidates")

    yield line


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the recording, not the program: what was recorded is finished."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _driven(name: str | None, settings: list[str] | None, arm: Arm | None) -> Iterator[RobotDriver | None]:
    """A connected driver, not armed."""
    from robot_drivers import load_driver
    from robot_drivers.limits import DriverError

    if name is None:
        yield None
        return
    assert arm is not None
    try:
        driver = load_driver(name, **driver_values(settings or []))
        driver.connect()
        try:
            missing = [joint for joint in arm.joints if joint not in driver.read().joint_names]
            if missing:
                raise ConfigError(f"driver '{name}' reports no joints {missing}; is it a driver for '{arm.name}'?")
            yield driver
        finally:
            driver.disconnect()
    except DriverError as error:
        raise CollectionError(f"driver '{name}': {error}") from error


def _positions(driver: RobotDriver, arm: Arm) -> tuple[float, Any]:
    """Stamp by the system's clock, s, which ROS 2 stamps images with; and joint positions [J] rad."""
    state = driver.read()
    known = dict(zip(state.joint_names, state.joint_pos.tolist(), strict=True))
    return state.stamp_s + time.time() - time.monotonic(), np.array([known[joint] for joint in arm.joints])


@contextmanager
def _read_joints(driver: RobotDriver, arm: Arm, put: Callable[[float, Any], None]) -> Iterator[None]:
    """Hand on joint positions at twice the control rate, in a thread."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.5 / arm.spec.control_rate_hz):
            put(*_positions(driver, arm))

    thread = threading.Thread(target=run, name="read_joints", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _plan(arm: Arm, driver: RobotDriver, views: int, reach: float, clearance: float, speed: float, seed: int) -> Any:
    from calibration.collect.view_poses import plan_views

    here = _positions(driver, arm)[1]
    return plan_views(arm.chain, arm.spec, arm.ee, arm.rest, here, views, reach, clearance, speed, seed=seed)


def _ask(arm: Arm, motion: Any, yes: bool) -> None:
    from calibration.collect.view_poses import joint_ranges

    for joint, (low, high) in joint_ranges(motion, arm.joints).items():
        console.print(f"  {joint:15s} {low:+.2f} .. {high:+.2f} rad")
    question = (
        f"The arm moves through these ranges to {len(motion.views)} poses for {motion.time[-1]:.0f} s. Only the table "
        "below it is known, nothing around it. Is its space clear, your hand at the switch?"
    )
    if not yes and not typer.confirm(question):
        raise typer.Abort


def _move(driver: RobotDriver, arm: Arm, motion: Any, folder: Path, watch: Callable[[], bool]) -> None:
    """Arm, stream the motion, and keep what was sent beside the candidates; ended early, the arm holds."""
    from calibration.collect.publish import MOTION
    from sim2real.deploy.record import record

    def on_progress(*_: float) -> None:
        if watch():
            raise KeyboardInterrupt

    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.{MOTION}")
    driver.arm(True)
    try:
        record(driver, arm.joints, motion.time, motion.command, log, on_progress)
    except KeyboardInterrupt:
        console.print("Stopped; the arm holds.")
    finally:
        if folder.is_dir() and log.exists():
            log.replace(folder / MOTION)
