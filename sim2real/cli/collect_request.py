"""Options that say what a collection records, live or out of a bag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim2real.cli.collect_arm import robot_of

if TYPE_CHECKING:
    from calibration.collect.collector import Collector
    from calibration.collect.feed import Feed
    from calibration.collect.topics import Topics
    from calibration.collect.views import Gates
    from sim2real.robots.arm import Arm
    from sim2real.runtime.camera import CameraCalibration

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
Bright = Annotated[float | None, typer.Option(min=0.001, max=1.0, help="Largest fraction of white pixels.")]
Dark = Annotated[float | None, typer.Option(min=0.001, max=1.0, help="Largest fraction of black pixels.")]
What = Annotated[str, typer.Option(help="What the images show; the title of the dataset's card.")]


@dataclass(frozen=True)
class Request:
    """A collection as it is asked for on the command line; fields are the options of :func:`request_options`."""

    image: str
    info: str
    joints: str
    ee_pose: str | None
    no_info: bool
    no_joints: bool
    camera: CameraCalibration | None
    robot: str | None
    count: int
    everything: bool
    blur: float | None
    bright: float | None
    dark: float | None
    what: str

    @staticmethod
    def refuse_existing(out: Path, resume: bool) -> None:
        """Refuse to overwrite, see :func:`calibration.collect.partial.refuse_existing`."""
        from calibration.collect.partial import refuse_existing

        refuse_existing(out, resume)

    def arm(self, driver: str | None = None) -> Arm | None:
        """The robot whose joints are recorded: as given, or the driver's.

        Raises:
            ConfigError: There is no such robot, or the driver's is not known.
        """
        robot = self.robot or (robot_of(driver) if driver else None)
        if robot is None:
            return None
        from sim2real.robots import robot_folder
        from sim2real.robots.arm import Arm

        return Arm(robot_folder(robot))

    def topics(self, driver: str | None = None) -> Topics:
        """Topics as asked for; a driver's joints come without a topic."""
        from calibration.collect.topics import Topics

        info = None if self.no_info or self.camera is not None else self.info
        return Topics(self.image, info, None if self.no_joints or driver else self.joints, self.ee_pose)

    def joint_names(
        self, arm: Arm | None, topics: Topics, driver: str | None, first: Callable[[str], list[str]]
    ) -> tuple[str, ...]:
        """Joints that are recorded: the arm's, or those that ``first`` finds on the topic."""
        if arm is not None:
            return tuple(arm.joints) if topics.joints or driver else ()
        return tuple(first(topics.joints)) if topics.joints else ()

    def start(
        self, out: Path, source: str, names: tuple[str, ...], topics: Topics, arm: Arm | None, resume: bool = False
    ) -> tuple[Collector, Feed]:
        """Begin to judge frames.

        Raises:
            CollectionError: The dataset exists, or an unfinished recording does.
        """
        from calibration.collect.collector import Collector, Wanted
        from calibration.collect.feed import Feed, end_effector
        from sim2real.runtime.camera import is_rectified

        collector = Collector(Wanted(out, self.count, self._gates(), self.what, source, names), resume)
        reach = end_effector(arm.chain, arm.ee) if arm is not None and topics.pose is None else None
        rectified = is_rectified(topics.image)
        info, pose = not self.no_info, topics.pose is not None
        return collector, Feed(collector, self.camera, info, bool(names), pose, reach, rectified)

    def _gates(self) -> Gates | None:
        from calibration.collect.views import Gates

        if self.everything:
            return None
        given = {"blur": self.blur, "bright_share": self.bright, "dark_share": self.dark}
        return Gates(**{name: value for name, value in given.items() if value is not None})


def request_options(
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
) -> Request:
    """Options of a collection."""
    from sim2real.runtime.camera import load_camera

    known = None if camera is None else load_camera(camera)
    return Request(
        image, info, joints, ee_pose, no_info, no_joints, known, robot, count, everything, blur, bright, dark, what
    )
