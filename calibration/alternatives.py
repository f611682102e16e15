"""Boards that look alike in two poses: which of them each image shows, by how the arm turned between images.

A chessboard is found the same way when it is turned by half a turn, and a small flat marker has two tilts that look
nearly alike. One image cannot tell; several can, as the board turns in the camera as the arm does.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.boards import Board, Detection
from calibration.intrinsics import board_pose
from sim2real.images.lens import project
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array

ALIKE_PX = 2.0  # another tilt counts where its corners are no farther off; the corners themselves are 0.1 to 1 px
CAPPED_RAD = 0.2  # a pair of samples that fits worse says nothing more


def looks(camera: CameraCalibration, board: Board, seen: Detection) -> list[tuple[Array, Detection]]:
    """Poses T_camera_board [4, 4] that an image may show, the likeliest first, each with its corners."""
    found = [(board_pose(camera, seen)[0], seen)]
    if board.kind == "chessboard":
        turned = Detection(seen.name, seen.pixels, np.ascontiguousarray(seen.points[::-1]))
        found.append((board_pose(camera, turned)[0], turned))
    elif board.markers == 1:
        found += [(pose, seen) for pose in _tilts(camera, seen)]
    return found


def _tilts(camera: CameraCalibration, seen: Detection) -> list[Array]:
    """Other poses [4, 4] of a flat marker that fit its corners nearly as well."""
    undistort = cv2.fisheye.undistortPoints if camera.lens == "fisheye" else cv2.undistortPoints
    rays = undistort(seen.pixels[:, None], camera.matrix, camera.distortion)
    _, rotations, translations, _ = cv2.solvePnPGeneric(seen.points, rays, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    result = []
    for rotation, translation in list(zip(rotations, translations, strict=True))[1:]:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], np.ravel(translation)
        off = project(camera, seen.points, pose) - seen.pixels
        if pose[2, 3] > 0 and np.sqrt((off**2).sum(axis=1).mean()) < ALIKE_PX:
            result.append(pose)
    return result


def choose(arm: Array, poses: Sequence[Sequence[Array]]) -> NDArray[np.int64]:
    """Index [N] of each sample's pose with which boards turn between samples as the arm does.

    Args:
        arm: Poses of the arm, inverse for a camera that stands [N, 4, 4].
        poses: Possible T_camera_board [4, 4] of every sample.
    """
    count = len(arm)
    # arm_i X board_i = arm_j X board_j: both motions turn by the same angle.
    turned = Rotation.from_matrix(arm[:, :3, :3])
    boards = [[Rotation.from_matrix(pose[:3, :3]) for pose in options] for options in poses]
    wanted = np.array([[(turned[j].inv() * turned[i]).magnitude() for j in range(count)] for i in range(count)])
    best, chosen = np.inf, np.zeros(count, dtype=np.int64)
    for i in range(count):
        for first in boards[i]:
            off = [[abs((b * first.inv()).magnitude() - wanted[i, j]) for b in boards[j]] for j in range(count)]
            cost = float(np.minimum([min(options) for options in off], CAPPED_RAD).sum())
            if cost < best - 1e-9:
                best, chosen = cost, np.array([int(np.argmin(options)) for options in off])
    return chosen


def settled(
    camera: CameraCalibration, board: Board, arm: Array, seen: Sequence[Detection]
) -> tuple[Array, list[Detection], int]:
    """Poses of the board [N, 4, 4] and its corners as they fit the arm, and how many are not those of one image alone.

    Args:
        camera: What took the images.
        board: What they show.
        arm: Poses of the arm, inverse for a camera that stands [N, 4, 4].
        seen: The board in each image.

    Raises:
        ConfigError: Corners fix no pose.
    """
    options = [looks(camera, board, detection) for detection in seen]
    if max(map(len, options), default=1) == 1:
        return np.array([o[0][0] for o in options]), list(seen), 0
    chosen = choose(arm, [[pose for pose, _ in sample] for sample in options])
    if board.kind == "chessboard" and 2 * chosen.sum() > len(chosen):
        chosen = 1 - chosen  # all turned is the same as none
    kept = [options[i][k] for i, k in enumerate(chosen)]
    return np.array([pose for pose, _ in kept]), [detection for _, detection in kept], int((chosen > 0).sum())
