"""Conventions, pinned by SciPy and PyBullet."""

import numpy as np
import pybullet
import pytest
from scipy.spatial.transform import Rotation

from sim2real.runtime import geometry


@pytest.fixture
def rotations():
    return Rotation.random(200, rng=np.random.default_rng(0))


def same_rotation(a, b):
    return np.abs(np.abs((a * b).sum(-1)) - 1.0).max() < 1e-12


def test_matrix_and_products_match_scipy(rotations):
    quat = rotations.as_quat()
    vector = np.random.default_rng(1).normal(size=(200, 3))
    matrix = geometry.quat_to_matrix(quat)
    np.testing.assert_allclose(matrix, rotations.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(geometry.rotate(matrix, vector), rotations.apply(vector), atol=1e-12)
    np.testing.assert_allclose(geometry.rotate_inverse(matrix, vector), rotations.inv().apply(vector), atol=1e-12)
    other = rotations[::-1]
    assert same_rotation(geometry.quat_multiply(quat, other.as_quat()), (rotations * other).as_quat())
    assert same_rotation(geometry.quat_multiply(quat, geometry.quat_conjugate(quat)), np.array([[0, 0, 0, 1.0]]))


def test_euler_angles_match_pybullet(rotations):
    for quat in rotations.as_quat()[:50]:
        rpy = np.array(pybullet.getEulerFromQuaternion(quat))
        assert same_rotation(geometry.rpy_to_quat(rpy), np.array(pybullet.getQuaternionFromEuler(rpy)))
        assert geometry.yaw_of(quat) == pytest.approx(rpy[2])


def test_rotation_vectors_and_tilt(rotations):
    vector = rotations.as_rotvec()
    assert same_rotation(geometry.rotation_vector_to_quat(vector), rotations.as_quat())
    np.testing.assert_allclose(geometry.rotation_vector_to_quat(np.zeros((1, 3))), [[0, 0, 0, 1]])
    up = rotations.apply([0, 0, 1])
    np.testing.assert_allclose(geometry.tilt_of(rotations.as_quat()), np.arccos(up[:, 2]), atol=1e-7)
