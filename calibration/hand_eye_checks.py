"""Checks of samples for hand-eye calibration: each says what it found and what to do.

A sample is a pose of the arm and one of the board, and any order of them is a list of poses: most mistakes show only in
how badly the samples fit together, or in a camera that would have to look backwards.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.hand_eye_fit import OUTLIER_MM, Problem, both
from sim2real.errors import ConfigError
from sim2real.types import Array

ROUNDED, CRUDE = 1e-3, 2e-2  # R·Rᵀ from the identity: where rotations are made whole in silence, and at most
FARTHEST_M = 20.0  # no arm and no board is so far away; millimetres are
LEAST_ROTATION_DEG = 10.0
INVERTED_RATIO = 3.0
# Samples of which unseen ones are so far off describe no camera: a sane set has a tenth of it.
WORST_MM, WORST_DEG = 50.0, 5.0
# MoveIt's 50 real samples, whose camera is right within 1 mm, give 4.9 mm and 0.09 degrees. Half as much again in
# position is noisy. In rotation it is five times: one board's pose from an image is good to 0.1 to 0.3 degrees.
NOISY_MM, NOISY_DEG = 7.5, 0.5
MOST_DROPPED = 0.1
REMEDY_RATIO = 10.0
# A plain lens sees 30 to 40 degrees to each side, and people hold a board where it is seen.
SIDEWAYS_DEG, SIDEWAYS_RATIO = 40.0, 1.5
LINK_DEG = 50.0
SWAPPED_RATIO, SWAPPED_M = 2.0, 0.15
CAUSES = (
    "Likely causes: arm and board in another order, or paired with each other's neighbours; millimetres; quaternions "
    "not in the order qx, qy, qz, qw; the calibration of another camera; a board that slips"
)


def whole_poses(name: str, poses: Array) -> tuple[Array, str]:
    """Poses [N, 4, 4] with exact rotations, and a note where they were rounded.

    The nearest rotation by singular values (Arun, Huang and Blostein 1987).

    Args:
        name: Of the transform, for messages.
        poses: As given.

    Raises:
        ConfigError: Matrices that are no poses, or lengths that cannot be metres.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ConfigError(f"{name} is of shape {poses.shape}; it is a list of 4x4 matrices")
    off = np.zeros(len(poses))
    for index, pose in enumerate(poses):
        rotation = pose[:3, :3]
        off[index] = np.abs(rotation @ rotation.T - np.eye(3)).max() if np.isfinite(pose).all() else np.inf
        if off[index] > CRUDE:
            raise ConfigError(f"{name}, sample {index}: not a pose; its rotation is not orthonormal or not finite")
        if np.linalg.det(rotation) < 0 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
            raise ConfigError(f"{name}, sample {index}: not a pose; it mirrors, or its last row is not 0 0 0 1")
    distances = np.linalg.norm(poses[:, :3, 3], axis=1)
    if len(poses) and distances.max() > FARTHEST_M:
        raise ConfigError(
            f"{name}, sample {int(distances.argmax())}: {distances.max():.0f} m away. Millimetres? Metres are wanted"
        )
    left, _, right = np.linalg.svd(poses[:, :3, :3])
    whole = poses.copy()
    whole[:, :3, :3] = left @ right
    if not len(poses) or off.max() <= ROUNDED:
        return whole, ""
    count = int((off > ROUNDED).sum())
    return whole, (
        f"{name}: rotations of {count} samples were rounded (orthonormal to {off.max():.4f} only) and made whole; give "
        "six decimals"
    )


def check_rotation(arm: Array) -> None:
    """Two axes of rotation at least are needed; about one, the camera's position along it is not fixed.

    Args:
        arm: Poses of the arm [N, 4, 4].

    Raises:
        ConfigError: It turns too little, or about one axis only.
    """
    relative = np.linalg.inv(arm)[:, None, :3, :3] @ arm[None, :, :3, :3]
    upper = np.triu_indices(len(arm), 1)
    rotations = Rotation.from_matrix(relative[upper]).as_rotvec()
    rotation_std = np.sqrt(np.maximum(np.linalg.eigvalsh(rotations.T @ rotations / len(rotations)), 0.0))
    largest, second = np.degrees(rotation_std[2]), np.degrees(rotation_std[1])
    if largest < LEAST_ROTATION_DEG:
        raise ConfigError(
            f"too little rotation: the hand turns by {largest:.1f}° between samples; turn it by 30° and more"
        )
    if second < 0.5 * LEAST_ROTATION_DEG:
        raise ConfigError(
            f"too little rotation: all of it is about one axis ({largest:.0f}°, about others {second:.1f}°); turn the "
            "hand about a second axis too, or the camera's place is not fixed"
        )


def unseen(arm: Array, board: Array) -> tuple[str, str]:
    """A board that no camera could have seen, behind it or from both sides: refused, or only noted.

    Samples that were exchanged or inverted fit together as well as the right ones do; but what a camera saw was in
    front of it, and a board shows one face. So a mistake is sure where another arrangement could be seen and this
    could not. Where none could, the samples are no camera's (a simulation that looks at nothing): that is noted.

    Args:
        arm: T_base_ee as given [N, 4, 4].
        board: T_camera_board as given [N, 4, 4], z of the camera forwards.

    Returns:
        Why the samples are refused, and what is noted; empty where there is nothing to say.
    """
    if _in_front(board) and any(_one_face(board, axis) for axis in range(3)):
        return "", ""  # z out of the board, or in its plane, as aruco_ros has it
    back = int((board[:, 2, 3] <= 0.0).sum())
    what = f"the board would be behind the camera in {back} of {len(board)} samples"
    if not back:
        what = f"the camera would see the board's back in {_fewer_faces(board)} of {len(board)} samples"
    others = {
        "arm and board look exchanged; the order is [T_base_ee, T_camera_board]": arm,
        "both sets of poses look inverted; give T_base_ee and T_camera_board": _inverse(board),
        "arm and board look exchanged and inverted; the order is [T_base_ee, T_camera_board]": _inverse(arm),
    }
    likely = next((text for text, other in others.items() if _in_front(other) and _one_face(other, 2)), "")
    if back and _off_axis(board, 0) < LINK_DEG:
        return (
            f"{what}, but in front of one that looks along x, as camera_link does: if that is the frame, add "
            f"--camera-frame link{'; else ' + likely if likely else ''}"
        ), ""
    if likely:
        return f"{what}: {likely}", ""
    if back == len(board):
        return f"{what}: give T_camera_board in the camera's optical frame, z forwards (OpenCV, REP 103)", ""
    return "", f"{what}, which no camera can: check that these are T_base_ee and T_camera_board, in this order"


def oddities(board: Array, on_hand: Array, in_base: Array) -> list[str]:
    """Note what is possible but unlikely: samples exchanged or inverted in a way that fits together.

    Args:
        board: T_camera_board [N, 4, 4].
        on_hand: What the fit says is on the hand, in the end effector's frame: the board or the camera [4, 4].
        in_base: What it says stands, in the base frame: the camera or the board [4, 4].
    """
    found = []
    there = _off_axis(board, 2)
    back: Array = np.asarray(np.linalg.inv(board), dtype=np.float64)
    other = np.degrees(np.arctan2(np.linalg.norm(back[:, :2, 3], axis=1), np.abs(back[:, 2, 3]))).max()
    if there > SIDEWAYS_DEG and there > SIDEWAYS_RATIO * other:
        found.append(
            f"the board is up to {there:.0f}° off the camera's axis, which few lenses see (inverted, the poses are "
            f"within {other:.0f}°): check that neither set is inverted and that arm and board are not exchanged"
        )
    hand, base = (float(np.linalg.norm(pose[:3, 3])) for pose in (on_hand, in_base))
    if hand > max(SWAPPED_RATIO * base, SWAPPED_M):
        found.append(
            f"what is on the hand would be {hand:.2f} m from it, and what stands {base:.2f} m from the base: if it is "
            "the other way round, both sets of poses are inverted"
        )
    return found


def inverted(problem: Problem, x: Array, y: Array) -> str:
    """Explain poses that fit better inverted; empty where they do not.

    Args:
        problem: All samples.
        x: The camera of the fit of all samples [4, 4].
        y: The board of the same [4, 4].
    """
    arm, board = problem.arm, problem.board
    own = float(np.median(both(*problem.errors(x, y, np.arange(len(arm))))))
    if own <= OUTLIER_MM:
        return ""
    wrong = {
        "the arm's poses look inverted, or the camera is on the other side (eye-in-hand instead of eye-to-hand, or the "
        "reverse): give T_base_ee, from the end effector to the base": misfit(_inverse(arm), board),
        "the board's poses look inverted: give T_camera_board, from the board to the camera": misfit(
            arm, _inverse(board)
        ),
    }
    text, best = min(wrong.items(), key=lambda item: item[1])
    if own > INVERTED_RATIO * best:
        return f"{text} (median error {own:.1f} mm as given, {best:.1f} mm the other way)"
    return ""


def misfit(arm: Array, board: Array) -> float:
    """Median error of samples [N, 4, 4] by the best of OpenCV's solvers, position and rotation as one, mm."""
    problem = Problem(arm, board)
    rows = np.arange(len(arm))
    try:
        x, y = problem.best_closed_form(rows)
    except ConfigError:
        return np.inf
    return float(np.median(both(*problem.errors(x, y, rows))))


def hopeless(mm: float, degrees: float) -> str:
    """Say that the samples fit no camera at all.

    Args:
        mm: Error in place of samples that the fit had not seen.
        degrees: Their error in rotation.
    """
    return (
        f"the samples fit no camera: those that the fit had not seen are {mm:.0f} mm and {degrees:.1f}° off, at most "
        f"{WORST_MM:.0f} mm and {WORST_DEG:.0f}° are allowed"
    )


def mistake(arm: Array, problem: Problem) -> str:
    """Name the mistake without which the samples fit; empty where none of those known is it.

    Args:
        arm: T_base_ee as given [N, 4, 4].
        problem: All samples as the fit takes them.
    """
    board = problem.board
    facing = np.asarray if np.allclose(arm, problem.arm) else _inverse
    own = misfit(problem.arm, board)
    tries = {
        "every pose of the arm belongs to the sample before it": (np.roll(arm, -1, axis=0), board),
        "every pose of the arm belongs to the sample after it": (np.roll(arm, 1, axis=0), board),
        "the arm's quaternions are in the order qw, qx, qy, qz": (_wxyz(arm), board),
        "the board's quaternions are in the order qw, qx, qy, qz": (arm, _wxyz(board)),
        "the quaternions of both arm and board are in the order qw, qx, qy, qz": (_wxyz(arm), _wxyz(board)),
        "the arm's rotations are transposed": (_transposed(arm), board),
        "the board's rotations are transposed": (arm, _transposed(board)),
        "the rotations of both arm and board are transposed": (_transposed(arm), _transposed(board)),
        "the arm's lengths are in millimetres": (_scaled(arm, 1e-3), board),
        "the board's lengths are in millimetres": (arm, _scaled(board, 1e-3)),
    }
    misfits = {text: misfit(facing(a), b) for text, (a, b) in tries.items()}
    text, best = min(misfits.items(), key=lambda item: item[1])
    return f"They fit (median {best:.1f} mm) if {text}" if best * REMEDY_RATIO < own else ""


def noisy(mm: float, degrees: float, dropped: int, count: int) -> list[str]:
    """Note samples that can be used but are worse than they should be.

    Args:
        mm: Error in place of samples that the fit had not seen.
        degrees: Their error in rotation.
        dropped: Samples that were left out.
        count: Of all samples.
    """
    said = []
    if mm > NOISY_MM or degrees > NOISY_DEG:
        said.append(
            f"noisy samples: those that the fit had not seen are {mm:.1f} mm and {degrees:.2f}° off, good ones less "
            f"than {NOISY_MM:g} mm and {NOISY_DEG:g}°. Let the arm come to rest, use a larger and flat board, and "
            "check the camera's own calibration"
        )
    if dropped > MOST_DROPPED * count:
        said.append(
            f"{dropped} of {count} samples did not fit and were left out: more than single mistakes. See why before "
            "this is used"
        )
    return said


def _fewer_faces(board: Array, axis: int = 2) -> int:
    """Number of boards [N, 4, 4] that show the face most do not, by the camera's side of the plane across an axis."""
    side = np.einsum("ni,ni->n", board[:, :3, axis], board[:, :3, 3]) > 0.0
    return int(min(side.sum(), (~side).sum()))


def _one_face(board: Array, axis: int) -> bool:
    return _fewer_faces(board, axis) == 0


def _in_front(board: Array) -> bool:
    return bool((board[:, 2, 3] > 0.0).all())


def _off_axis(board: Array, axis: int) -> float:
    """Largest angle of boards [N, 4, 4] from an axis of the camera's frame, degrees."""
    along = board[:, axis, 3]
    across = np.linalg.norm(np.delete(board[:, :3, 3], axis, axis=1), axis=1)
    return float(np.degrees(np.arctan2(across, along)).max())


def _wxyz(poses: Array) -> Array:
    """Poses as they are if their quaternions were read as xyzw but are wxyz."""
    result = poses.copy()
    quat = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    result[:, :3, :3] = Rotation.from_quat(np.roll(quat, -1, axis=1)).as_matrix()
    return result


def _transposed(poses: Array) -> Array:
    result = poses.copy()
    result[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    return result


def _scaled(poses: Array, factor: float) -> Array:
    result = poses.copy()
    result[:, :3, 3] *= factor
    return result


def _inverse(poses: Array) -> Array:
    return np.asarray(np.linalg.inv(poses), dtype=np.float64)
