"""The board in a folder of images or a bag: found, and checked for being the board that was described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.alternatives import settled
from calibration.boards import (
    STOP_PX,
    Board,
    Detection,
    bend_px,
    dictionary_seen,
    on_one_line,
    shows_aprilgrid,
)
from calibration.intrinsics import board_pose
from calibration.verdict import WORST_PX
from sim2real.errors import ConfigError
from sim2real.images.files import read_images
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array, Image

PLAIN_WIDTH = 640
CLEARLY = 3.0  # another board explains the corners if they are so many times nearer to it
PEEKS = 5  # images in which a larger chessboard is looked for


@dataclass(frozen=True)
class Seen:
    """A board in images.

    Attributes:
        board: As it was found: columns and rows may be exchanged.
        found: One detection an image that shows it, in order.
        stamps: Of these images, s; of files 0.
        missed: Names of the images in which it was not found.
        size: Width and height of the images, px.
        notes: What the user should know about the board.
        images: The first few that show it, or of all where none does, by name [H, W] or [H, W, 3] BGR.
    """

    board: Board
    found: list[Detection]
    stamps: list[float]
    missed: list[str]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    images: tuple[tuple[str, Image], ...] = ()


def find_board(
    board: Board, source: Path, topic: str | None = None, window: int | None = None, stop_px: float = STOP_PX
) -> Seen:
    """Find a board in every image; with columns and rows exchanged where only so it fits.

    Args:
        board: What it should look like.
        source: Folder of images, one image, or a bag.
        topic: Of the images in a bag.
        window: See :meth:`calibration.boards.Board.detect`.
        stop_px: The same.

    Raises:
        ConfigError: Nothing to read, or a charuco board that only fits with, or without, ``legacy``.
    """
    seen = _look(board, source, topic, window, stop_px)
    images = [image for _, image in seen.images]
    if board.kind != "chessboard":
        if board.kind == "grid" and 2 * len(seen.found) < len(seen.missed) and any(map(shows_aprilgrid, images)):
            raise ConfigError(
                f"{source} shows Kalibr's aprilgrid (tags with a border of two bits, black squares at their corners), "
                "which is not read: print a board with 'sim2real calibrate board', or use Kalibr for these images"
            )
        seen = _fitting(seen, source, topic)
        if seen.found:
            return seen
        dictionary, count = dictionary_seen(images[0])
        if not count or dictionary == board.dictionary.removeprefix("DICT_"):
            return seen
        return replace(
            seen, notes=(*seen.notes, f"the first image shows {count} markers of the dictionary {dictionary}")
        )
    larger = board.larger(images)  # columns and rows may be exchanged: it looks the same either way
    if larger is None:
        return seen
    note = (
        f"the chessboard has more inner corners than {board.columns} x {board.rows}: {larger[0]} x {larger[1]} were "
        "found. Count the corners between its squares; a part of a board may be another part in the next image"
    )
    return replace(seen, notes=(*seen.notes, note))


def fitting_poses(camera: CameraCalibration, seen: Seen) -> tuple[list[int], Array, Array, dict[str, str]]:
    """Compute the board's pose in every image that it fits.

    Args:
        camera: What took the images.
        seen: The board in them.

    Returns:
        Indices into ``seen.found`` [N], T_camera_board [N, 4, 4], their reprojection errors [N] px, and why the others
        are left out, by name.

    Raises:
        ConfigError: The board is in no image, the camera is of another resolution, or the board fits none.
    """
    if not seen.found:
        raise ConfigError(
            f"the board was found in none of {len(seen.missed)} images; check its kind, columns, rows and dictionary"
        )
    check_size(camera, seen.size)
    poses = [board_pose(camera, detection) for detection in seen.found]
    keep = [index for index, (_, error) in enumerate(poses) if error <= WORST_PX]
    if not keep:
        least = min(error for _, error in poses)
        raise ConfigError(
            f"the board fits no image: its corners are {least:.1f} px off and more, {WORST_PX:.0f} are allowed, as "
            f"{_grid(seen.board)}{_and_exchanged(seen.board)}. Check the board's kind and count, that its parts are of "
            "the sizes given, and that the camera's calibration is of this camera and zoom"
        )
    why = {
        seen.found[index].name: f"the board does not fit, its corners are {error:.1f} px off"
        for index, (_, error) in enumerate(poses)
        if error > WORST_PX
    }
    return keep, np.array([poses[i][0] for i in keep]), np.array([poses[i][1] for i in keep]), why


def check_size(camera: CameraCalibration, size: tuple[int, int]) -> None:
    """Refuse a calibration of another resolution.

    Raises:
        ConfigError: Camera and images [width, height] px differ in size.
    """
    if (camera.width, camera.height) != tuple(size):
        raise ConfigError(
            f"the camera's calibration is of {camera.width} x {camera.height}, the images are {size[0]} x {size[1]}; "
            "calibrate the camera at the resolution that is used"
        )


def _look(board: Board, source: Path, topic: str | None, window: int | None, stop_px: float) -> Seen:
    """Find the board."""
    found, missed, stamps, size = [], [], [], (0, 0)
    lines = list[str]()
    showing, others = list[tuple[str, Image]](), list[tuple[str, Image]]()
    for name, stamp, image in read_images(source, topic):
        size = (image.shape[1], image.shape[0])
        detection = board.detect(image, name, window, stop_px)
        if detection is not None and on_one_line(detection, board.square):
            lines.append(name)
            detection = None
        if detection is None:
            missed.append(name)
        else:
            found.append(detection)
            stamps.append(stamp)
        kept = others if detection is None else showing
        if len(kept) < PEEKS:
            kept.append((name, image))
    notes = (f"left out, as the corners seen lie on one line: {', '.join(lines)}",) if lines else ()
    return Seen(board, found, stamps, missed, size, notes, tuple(showing or others))


def _fitting(seen: Seen, source: Path, topic: str | None) -> Seen:
    """The same with columns and rows exchanged, if only that fits."""
    board, bend = seen.board, _bend(seen)
    if bend <= WORST_PX * max(1.0, seen.size[0] / PLAIN_WIDTH):  # a lens bends by so many of a larger image's pixels
        return seen
    exchanged = replace(board, columns=board.rows, rows=board.columns)
    others = [exchanged] if board.columns != board.rows else []
    if board.kind == "charuco":
        others += [replace(b, legacy=not b.legacy) for b in (board, *others)]
    for other in others:
        again = _look(other, source, topic, None, STOP_PX)
        if CLEARLY * _bend(again) >= bend or len(again.found) < len(seen.found) or not again.found:
            continue
        if other.legacy != board.legacy:
            legacy = "with --legacy" if other.legacy else "without --legacy"
            raise ConfigError(f"the board fits as {_grid(other)} {legacy}, not as {_grid(board)} as given")
        note = (
            f"the board fits as {_grid(other)}, not as {_grid(board)}: columns and rows were exchanged. x runs along "
            f"its {other.columns} columns"
        )
        return replace(again, notes=(*again.notes, note))
    return seen


def _bend(seen: Seen) -> float:
    return float(np.median([bend_px(detection) for detection in seen.found])) if seen.found else float("inf")


def _grid(board: Board) -> str:
    return f"--columns {board.columns} --rows {board.rows}"


def _and_exchanged(board: Board) -> str:
    return " and exchanged" if board.kind != "chessboard" and board.columns != board.rows else ""


@dataclass(frozen=True)
class Samples:
    """Poses of an arm with those of a board that its camera saw there.

    Attributes:
        arm: T_base_ee [N, 4, 4].
        board: T_camera_board [N, 4, 4].
        found: The board in each image.
        misfits: Images that were left out, and why.
        lost: Names of poses without an image of the board.
        notes: What the user should know about them.
    """

    arm: Array
    board: Array
    found: list[Detection]
    misfits: dict[str, str]
    lost: list[str]
    notes: tuple[str, ...] = ()


def pose_samples(stands: Mapping[str, Array], seen: Seen, camera: CameraCalibration, to_hand: bool) -> Samples:
    """Match boards in images with poses of the arm, by the images' names.

    Args:
        stands: T_base_ee [4, 4] by the name of the image taken there.
        seen: Boards in images.
        camera: The camera that took them.
        to_hand: The camera stands beside the arm.

    Raises:
        ConfigError: No image has both.
    """
    keep, _, _, misfits = fitting_poses(camera, seen)
    found = [seen.found[index] for index in keep if seen.found[index].name in stands]
    if not found:
        raise ConfigError("no image has both a pose and a board; the poses' names must be those of the image files")
    arm = np.array([stands[detection.name] for detection in found])
    boards, corners, other = settled(camera, seen.board, np.linalg.inv(arm) if to_hand else arm, found)
    lost = sorted(set(stands) - {detection.name for detection in found})
    how = "turned by half a turn" if seen.board.kind == "chessboard" else "with the other tilt that its corners allow"
    note = f"the board was taken {how} in {other} of {len(found)} images: only so it moves as the arm does"
    return Samples(arm, boards, corners, misfits, lost, (note,) if other else ())
