"""Rotations on arrays of quaternions, numpy only.

Quaternions are **xyzw** and unit length; ``q`` rotates body vectors into the world
(``v_world = R(q) v_body``). Every function works on a batch: the last axis holds the
components, leading axes are free. Only element-wise arithmetic is used where a policy's
observation depends on it, so that one row gives the same bits alone and in a batch.

Functions of ``..._columns`` are the same on components (:mod:`sim2real.runtime.columns`), for code that goes on with
them: NumPy's microsecond a call is most of what a robot alone costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim2real.runtime.columns import Column, arccos, arctan2, columns, cos, joined, rint, sin, within
from sim2real.types import Array

Columns = Sequence[Column]


def quat_to_matrix(quat: Array) -> Array:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] (xyzw)."""
    lead = quat.shape[:-1]
    return joined(matrix_columns(columns(quat)), lead).reshape(*lead, 3, 3)


def matrix_columns(quat: Columns) -> Columns:
    """Elements of a rotation matrix, row after row."""
    x, y, z, w = quat
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - z * w),
        2.0 * (x * z + y * w),
        2.0 * (x * y + z * w),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - x * w),
        2.0 * (x * z - y * w),
        2.0 * (y * z + x * w),
        1.0 - 2.0 * (x * x + y * y),
    )


def rotate(matrix: Array, vector: Array) -> Array:
    """Body vectors [..., 3] in the world frame, given rotation matrices [..., 3, 3]."""
    x, y, z = vector[..., 0:1], vector[..., 1:2], vector[..., 2:3]
    return matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2] * z


def rotate_inverse(matrix: Array, vector: Array) -> Array:
    """World vectors [..., 3] in the body frame, given rotation matrices [..., 3, 3]."""
    x, y, z = vector[..., 0:1], vector[..., 1:2], vector[..., 2:3]
    return matrix[..., 0, :] * x + matrix[..., 1, :] * y + matrix[..., 2, :] * z


def rotate_inverse_columns(matrix: Columns, vector: Columns) -> Columns:
    """A world vector in the body frame, given the elements of :func:`matrix_columns`."""
    a, b, c, d, e, f, g, h, i = matrix
    x, y, z = vector
    return a * x + d * y + g * z, b * x + e * y + h * z, c * x + f * y + i * z


def quat_multiply(a: Array, b: Array) -> Array:
    """Hamilton product a ⊗ b of quaternions [..., 4] (xyzw): first b, then a."""
    return joined(quat_multiply_columns(columns(a), columns(b)), np.broadcast_shapes(a.shape[:-1], b.shape[:-1]))


def quat_multiply_columns(a: Columns, b: Columns) -> Columns:
    """Hamilton product of two quaternions' components."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def quat_conjugate(quat: Array) -> Array:
    """Inverse of unit quaternions [..., 4] (xyzw)."""
    return quat * np.array([-1.0, -1.0, -1.0, 1.0])


def rpy_to_quat(rpy: Array) -> Array:
    """Quaternions [..., 4] (xyzw) of roll, pitch, yaw [..., 3] rad (fixed axes x, y, z; REP 103)."""
    return joined(rpy_to_quat_columns(*columns(rpy)), rpy.shape[:-1])


def rpy_to_quat_columns(roll: Column, pitch: Column, yaw: Column) -> Columns:
    """Components of the quaternion of roll, pitch and yaw, rad."""
    roll, pitch, yaw = 0.5 * roll, 0.5 * pitch, 0.5 * yaw
    cr, cp, cy = cos(roll), cos(pitch), cos(yaw)
    sr, sp, sy = sin(roll), sin(pitch), sin(yaw)
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def yaw_of(quat: Array) -> Array:
    """Yaw [...] rad of unit quaternions [..., 4] (xyzw)."""
    return np.asarray(yaw_column(columns(quat))).reshape(quat.shape[:-1])


def yaw_column(quat: Columns) -> Column:
    """Yaw of a quaternion's components, rad."""
    x, y, z, w = quat
    return arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def wrap_angle(angle: Column) -> Column:
    """The same angles [...] rad within -π .. π."""
    return angle - 2.0 * np.pi * rint(angle / (2.0 * np.pi))


def tilt_of(quat: Array) -> Array:
    """Angle [...] rad between the body z axis and the world z axis, of quaternions [..., 4] (xyzw)."""
    x, y, *_ = columns(quat)
    return np.asarray(arccos(within(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0))).reshape(quat.shape[:-1])


def rotation_vector_to_quat(vector: Array) -> Array:
    """Quaternions [..., 4] (xyzw) of rotation vectors [..., 3] rad."""
    angle = np.sqrt((vector * vector).sum(-1, keepdims=True))
    scale = np.where(angle > 1e-9, np.sin(0.5 * angle) / np.maximum(angle, 1e-9), 0.5)
    return np.concatenate((vector * scale, np.cos(0.5 * angle)), axis=-1)


def pose_matrix(pos: Array, quat: Array) -> Array:
    """Pose [4, 4] of a place [3] m and a unit quaternion [4] (xyzw)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = quat_to_matrix(quat), pos
    return pose
