"""The Bullet client: what is set is what is simulated."""

import numpy as np
import pybullet
import pytest

from sim2real.errors import SimulationError
from sim2real.robots import load_robot
from sim2real.sim.tables import Tables
from sim2real.sim.world import NO_GRAVITY, World

LEVEL = np.array([[0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def world():
    made = World(5, 0.01)
    made.load_robots(load_robot("crazyflie").urdf)
    yield made
    made.close()


def place(world, pos=(0, 0, 1), quat=LEVEL, lin=(0, 0, 0), ang=(0, 0, 0)):
    n = world.count
    world.write_base(
        np.arange(n),
        np.tile(pos, (n, 1)).astype(float),
        np.tile(quat, (n, 1)),
        np.tile(lin, (n, 1)),
        np.tile(ang, (n, 1)),
    )


def test_free_fall_and_robots_do_not_touch_each_other(world):
    place(world)
    for _ in range(50):
        world.step()
    pos, _, vel, _ = world.read_base()
    np.testing.assert_allclose(vel[:, 2], -9.81 * 0.5, rtol=1e-9)
    np.testing.assert_allclose(pos[:, :2], 0.0, atol=1e-9)
    np.testing.assert_allclose(pos[:, 2], pos[0, 2], atol=1e-9)


def test_force_and_torque_are_in_the_body_frame(world):
    yawed = np.array([[0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)]])  # body x points along world y
    place(world, quat=yawed)
    world.write_inertia(np.arange(5), np.full(5, 0.04), np.tile([2e-5, 2e-5, 3e-5], (5, 1)))
    force, torque = np.tile([0.1, 0.0, 0.04 * 9.81], (5, 1)), np.tile([1e-4, 0.0, 0.0], (5, 1))
    world.apply_wrench(force, torque)
    world.step()
    _, _, lin, ang = world.read_base()
    np.testing.assert_allclose(lin, np.tile([0.0, 0.1 / 0.04 * 0.01, 0.0], (5, 1)), atol=1e-9)
    np.testing.assert_allclose(ang, np.tile([0.0, 1e-4 / 2e-5 * 0.01, 0.0], (5, 1)), atol=1e-9)


def bullets_inertia(world, row):
    info = pybullet.getDynamicsInfo(world.bodies[row], -1, physicsClientId=world.client)
    return info[0], info[2]


def test_inertia_is_what_was_set_and_must_be_possible(world):
    world.write_inertia(np.array([3]), np.array([0.05]), np.array([[1e-5, 2e-5, 2.5e-5]]))
    mass, inertia = bullets_inertia(world, 3)
    assert mass == pytest.approx(0.05)
    assert inertia == pytest.approx((1e-5, 2e-5, 2.5e-5))
    assert bullets_inertia(world, 0)[1] == pytest.approx((1.66e-5, 1.66e-5, 2.93e-5)), (
        "Bullet must not derive it from shapes"
    )
    for inertia_row in ([1e-5, 1e-5, 3e-5], [0.0, 1e-5, 1e-5]):
        with pytest.raises(SimulationError, match="inertia"):
            world.write_inertia(np.array([0]), np.array([0.03]), np.array([inertia_row]))


def test_objects_rest_and_fall_on_their_own_tables():
    """Upright cylinders on the tables of two arms: at rest on the top, wherever that is, and nothing between robots."""
    world = World(2, 0.01, NO_GRAVITY)  # as arms have it: only objects weigh
    arm = load_robot("so101")
    world.load_robots(arm.urdf, fixed_base=True)
    tables = Tables(world, 0.02)
    both, tops = np.arange(2), np.array([0.0, 0.03])
    pos = np.array([[0.25, 0.05, 0.02], [0.2, -0.1, 0.05]])
    tables.write_tables(both, tops)
    friction, damping = np.full(2, 0.4), np.zeros(2)
    tables.write_objects(both, pos, np.array([0.02, 0.025]), np.array([0.05, 0.2]), friction, damping)
    for _ in range(50):
        world.step()
    place, velocity = tables.read_objects()
    np.testing.assert_allclose(place, pos, atol=1e-3)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-3)
    # One is put elsewhere in the air, and falls back onto its table; the other stays.
    tables.write_objects(
        np.array([1]),
        pos[1:] + np.array([0.0, 0.0, 0.01]),
        np.array([0.03]),
        np.array([0.1]),
        friction[1:],
        damping[1:],
    )
    world.step()
    falling = tables.read_objects()[1]
    np.testing.assert_allclose(falling[:, 2], [0.0, -9.81 * 0.01], atol=1e-3)
    for _ in range(80):
        world.step()
    place = tables.read_objects()[0]
    np.testing.assert_allclose(place[0], pos[0], atol=1e-3)
    np.testing.assert_allclose(place[1, 2], pos[1, 2], atol=1e-3)
    world.close()


def test_a_missing_urdf_and_bad_sizes_are_refused(tmp_path):
    with pytest.raises(SimulationError, match="at least one robot"):
        World(0, 0.01)
    world = World(1, 0.01)
    with pytest.raises(SimulationError, match="no URDF"):
        world.load_robots(tmp_path / "none.urdf")
    world.close()
    world.close()


def test_picture_shows_the_robot(world):
    place(world)
    picture = world.render((0.3, -0.3, 1.2), (0.0, 0.0, 1.0), 160, 120)
    assert picture.shape == (120, 160, 3)
    assert picture[40:80, 60:100].std() > 5, "something must be in the middle"
    assert len(np.unique(picture[40:80, 60:100].reshape(-1, 3), axis=0)) > 10
