"""Rotations on arrays of quaternions, numpy only.

Quaternions are **xyzw** and unit length; ``q`` rotates body vectors into the world
(``v_world = R(q) v_body``). Every function works on a batch: the last axis holds the
components, leading axes are free. Only element-wise arithmetic is used where a policy's
observation depends on it, so that one row gives the same bits alone and in a batch.
"""

from __future__ import annotations

import numpy as np

from sim2real.types import Array


def quat_to_matrix(quat: Array) -> Array:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] (xyzw)."""
    x, y, z, w = quat[..., 0], quat[..., 1], quat[..., 2], quat[..., 3]
    out = np.empty((*quat.shape[:-1], 3, 3))
    out[..., 0, 0] = 1.0 - 2.0 * (y * y + z * z)
    out[..., 0, 1] = 2.0 * (x * y - z * w)
    out[..., 0, 2] = 2.0 * (x * z + y * w)
    out[..., 1, 0] = 2.0 * (x * y + z * w)
    out[..., 1, 1] = 1.0 - 2.0 * (x * x + z * z)
    out[..., 1, 2] = 2.0 * (y * z - x * w)
    out[..., 2, 0] = 2.0 * (x * z - y * w)
    out[..., 2, 1] = 2.0 * (y * z + x * w)
    out[..., 2, 2] = 1.0 - 2.0 * (x * x + y * y)
    return out


def rotate(matrix: Array, vector: Array) -> Array:
    """Body vectors [..., 3] in the world frame, given rotation matrices [..., 3, 3]."""
    x, y, z = vector[..., 0:1], vector[..., 1:2], vector[..., 2:3]
    return matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2] * z


def rotate_inverse(matrix: Array, vector: Array) -> Array:
    """World vectors [..., 3] in the body frame, given rotation matrices [..., 3, 3]."""
    x, y, z = vector[..., 0:1], vector[..., 1:2], vector[..., 2:3]
    return matrix[..., 0, :] * x + matrix[..., 1, :] * y + matrix[..., 2, :] * z


def quat_multiply(a: Array, b: Array) -> Array:
    """Hamilton product a ⊗ b of quaternions [..., 4] (xyzw): first b, then a."""
    ax, ay, az, aw = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bx, by, bz, bw = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    return np.stack(
        (
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ),
        axis=-1,
    )


def quat_conjugate(quat: Array) -> Array:
    """Inverse of unit quaternions [..., 4] (xyzw)."""
    return quat * np.array([-1.0, -1.0, -1.0, 1.0])


def rpy_to_quat(rpy: Array) -> Array:
    """Quaternions [..., 4] (xyzw) of roll, pitch, yaw [..., 3] rad (fixed axes x, y, z; REP 103)."""
    half = 0.5 * rpy
    c, s = np.cos(half), np.sin(half)
    cr, cp, cy = c[..., 0], c[..., 1], c[..., 2]
    sr, sp, sy = s[..., 0], s[..., 1], s[..., 2]
    return np.stack(
        (
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ),
        axis=-1,
    )


def yaw_of(quat: Array) -> Array:
    """Yaw [...] rad of unit quaternions [..., 4] (xyzw)."""
    x, y, z, w = quat[..., 0], quat[..., 1], quat[..., 2], quat[..., 3]
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def wrap_angle(angle: Array) -> Array:
    """The same angles [...] rad within -π .. π."""
    return angle - 2.0 * np.pi * np.round(angle / (2.0 * np.pi))


def tilt_of(quat: Array) -> Array:
    """Angle [...] rad between the body z axis and the world z axis, of quaternions [..., 4] (xyzw)."""
    x, y = quat[..., 0], quat[..., 1]
    return np.arccos(np.clip(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0))


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
