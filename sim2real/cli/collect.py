"""Commands that collect real images: live, from a bag; and export them."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim2real.cli.collect_arm import Drive, MovingArm, drive_options, moving
from sim2real.cli.collect_request import Request, request_options
from sim2real.cli.collect_view import display, finish, stopping
from sim2real.cli.console import JsonFile, console, progress_bars
from sim2real.cli.options import takes
from sim2real.errors import CollectionError

if TYPE_CHECKING:
    from calibration.collect.collector import Collector
    from calibration.collect.feed import Feed
    from calibration.collect.topics import Topics
    from sim2real.recordings.bags import Bag

app = typer.Typer(no_args_is_help=True, help="Collect real images with what the robot measured at the same moment.")

Out = Annotated[Path, typer.Argument(help="Folder of the dataset to make.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a recording that was broken off.")]


@app.command("live")
@takes(drive_options, "drive")
@takes(request_options, "request")
def live_command(
    out: Out,
    request: Request,
    drive: Drive,
    seconds: Annotated[float, typer.Option(min=0.0, help="Stop after so long; 0: at Ctrl-C.")] = 0.0,
    wait: Annotated[float, typer.Option(min=0.0, help="How long to wait for the topics, s.")] = 10.0,
    resume: Resume = False,
    json_file: JsonFile = None,
) -> None:
    """Record from ROS 2 topics; with --driver, while the arm moves through view poses (it asks first)."""
    listening_class = _ros()
    request.refuse_existing(out, resume)
    arm = request.arm(drive.driver)
    with moving(drive, arm) as moved, listening_class() as listening:
        topics = listening.node.find(request.topics(drive.driver), wait)
        names = request.joint_names(arm, topics, drive.driver, lambda t: listening.node.first_joint_names(t, wait))
        if moved is not None:
            moved.ask()
        collector, feed = request.start(out, topics.listed(), names, topics, arm, resume)
        with closing(collector):
            _record(listening, collector, feed, topics, moved, seconds)
        finish(collector, json_file)


@app.command("bag")
@takes(request_options, "request")
def bag_command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder or .mcap file.")],
    out: Out,
    request: Request,
    json_file: JsonFile = None,
) -> None:
    """Take images out of a recorded bag; ROS 2 is not needed."""
    from calibration.collect.feed import first_joint_names
    from calibration.collect.topics import find_topics
    from sim2real.recordings.bags import open_bag

    arm = request.arm()
    with open_bag(bag) as recorded:
        topics = find_topics(request.topics(), recorded.types, str(bag))
        names = request.joint_names(arm, topics, None, lambda topic: first_joint_names(recorded, topic))
        collector, feed = request.start(out, f"{bag.name}: {topics.listed()}", names, topics, arm)
        _play(recorded, topics, collector, feed)
    finish(collector, json_file)


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


def _ros() -> Any:
    """The class that listens to ROS 2.

    Raises:
        CollectionError: ROS 2 or OpenCV is missing.
        ConfigError: The middleware that ``RMW_IMPLEMENTATION`` asks for is.
    """
    from sim2real.deploy.middleware import check_middleware

    check_middleware()
    try:
        import rclpy  # noqa: F401

        from calibration.collect.node import Listening
    except ImportError as error:
        raise CollectionError(f"live images need ROS 2 and OpenCV ({error}); see 'sim2real doctor'") from error
    return Listening


def _record(
    listening: Any, collector: Collector, feed: Feed, topics: Topics, moved: MovingArm | None, seconds: float
) -> None:
    """Judge images until the arm has moved, the time is over, or Ctrl-C comes."""
    with stopping() as stopped, display(collector) as show:
        listening.start_feeding(feed, topics)
        for topic in listening.node.best_effort:
            console.print(f"[yellow]{topic} is published with best effort: what DDS loses is not sent again.")

        def watch() -> bool:
            listening.check()
            show()
            return stopped.is_set()

        if moved is not None:
            moved.run(listening.node.put_joints, collector.partial, watch)
        else:
            until = time.monotonic() + seconds if seconds else float("inf")
            while time.monotonic() < until and not watch():
                stopped.wait(0.1)
        listening.stop_feeding()
        show()


def _play(bag: Bag, topics: Topics, collector: Collector, feed: Feed) -> None:
    from calibration.collect.feed import play

    played = False
    try:
        with progress_bars() as progress:
            bar = progress.add_task("messages", total=None, figures="")
            play(bag, topics, feed, lambda done, whole: progress.update(
                bar, completed=done, total=whole, figures=f"{collector.kept} candidates"))  # fmt: skip
        played = True
    finally:
        if not played:  # another run reads the bag from its beginning; a part of it is worth nothing
            collector.discard()
