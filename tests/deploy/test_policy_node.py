"""The policy node's life: what it refuses, that only an operator starts it, and that it ends holding."""

import json
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")

import rclpy
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rclpy.executors import SingleThreadedExecutor
from ros_rig import LIMITS, Rig, make_pd_bundle

from sim2real.deploy.crazyflie_messages import from_legacy
from sim2real.deploy.policy_node import FAILURE, SUCCESS, PolicyNode
from sim2real.runtime.bundle_files import sha256
from sim2real.runtime.loop import FixedRateLoop

pytestmark = pytest.mark.ros

DEACTIVATE = 4
HOLD = {limit.name: limit.hold for limit in LIMITS}
SLEW = {limit.name: limit.slew_per_s * 0.02 for limit in LIMITS}


@pytest.fixture(scope="module")
def pd_bundle(tmp_path_factory):
    return make_pd_bundle(tmp_path_factory.mktemp("pd") / "bundle")


@pytest.fixture
def start_node():
    """Starts policy nodes in this process, with parameters given as on a command line."""
    nodes = []

    def start(**parameters):
        arguments = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", *arguments])
        nodes.append(PolicyNode())
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()


class Flight(Rig):
    """A rig whose policy node starts with further parameters, and which keeps the time of every command."""

    def __init__(self, bundle, **parameters):
        super().__init__(bundle)
        self.extra = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        self.times = []

    def start_policy(self):
        return self.start("policy_node", ["-p", f"bundle:={self.bundle}", "-p", "goal:=[0.0, 0.0, 1.5]", *self.extra])

    def _on_command(self, message):
        super()._on_command(message)
        self.times.append(time.monotonic())


def test_a_good_bundle_configures_again_and_again(pd_bundle, start_node):
    node = start_node(bundle=pd_bundle)
    for _ in range(2):
        assert node.trigger_configure() is SUCCESS
        assert node.trigger_cleanup() is SUCCESS


@pytest.mark.parametrize("goal", ["[0, 0, 1]", "[0.5, -0.5, 1.0]"])
def test_a_goal_may_be_written_with_or_without_points(pd_bundle, start_node, goal):
    assert start_node(bundle=pd_bundle, goal=goal).trigger_configure() is SUCCESS


@pytest.mark.parametrize(
    "parameters", [{"goal": "[0.0, 1.0]"}, {"goal": "[0.0, 0.0, .nan]"}, {"state_source": "telepathy"}]
)
def test_unusable_parameters_refuse_to_configure(pd_bundle, start_node, parameters):
    node = start_node(bundle=pd_bundle, **parameters)
    assert node.trigger_configure() is FAILURE
    assert node.trigger_configure() is FAILURE, "it is asked again and says no again"


def test_a_missing_bundle_refuses_to_configure(tmp_path, start_node):
    assert start_node(bundle=tmp_path / "nothing").trigger_configure() is FAILURE


def test_an_altered_bundle_refuses_to_configure(tmp_path, start_node):
    path = make_pd_bundle(tmp_path / "bundle")
    with open(path / "policy.onnx", "ab") as file:
        file.write(b"\0")
    assert start_node(bundle=path).trigger_configure() is FAILURE


def test_a_bundle_that_reads_what_the_robot_lacks_refuses_to_configure(tmp_path, start_node):
    path = make_pd_bundle(tmp_path / "bundle")
    spec = json.loads((path / "spec.json").read_text())
    spec["observation"]["observation"][0]["frame"] = "world"  # the robot gives it in the heading frame
    (path / "spec.json").write_text(json.dumps(spec))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["spec.json"] = sha256((path / "spec.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert start_node(bundle=path).trigger_configure() is FAILURE


class Room:
    """A drone that stands in a room: what it publishes, and what it is told."""

    def __init__(self, node):
        self.policy, self.node = node, rclpy.create_node("room")
        create = self.node.create_publisher
        self.pose, self.twist, self.goal = (
            create(kind, topic, 1)
            for kind, topic in ((PoseStamped, "pose"), (TwistStamped, "twist"), (PoseStamped, "goal"))
        )
        self.commands, self.rng = [], np.random.default_rng(0)
        self.node.create_subscription(Twist, "cmd_vel_legacy", self._on_command, 10)
        self.executor = SingleThreadedExecutor()
        for one in (node, self.node):
            self.executor.add_node(one)

    def _on_command(self, m):
        self.commands.append(from_legacy(m.linear.x, m.linear.y, m.linear.z, m.angular.z))

    def publish(
        self, pos=(2.0, 0.0, 0.5), quat=(0.0, 0.0, 0.0, 1.0), velocity=(0.0, 0.0, 0.0), frame="world", noise=1e-3
    ):
        at, moving = PoseStamped(), TwistStamped()
        at.header.stamp = moving.header.stamp = self.node.get_clock().now().to_msg()
        at.header.frame_id = moving.header.frame_id = frame
        p, q, v = at.pose.position, at.pose.orientation, moving.twist.linear
        p.x, p.y, p.z = (float(value) + noise * self.rng.normal() for value in pos)
        q.x, q.y, q.z, q.w = quat
        v.x, v.y, v.z = (value + noise * self.rng.normal() for value in velocity)
        self.twist.publish(moving)
        self.pose.publish(at)

    def run(self, seconds, rate_hz=100.0, **state):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.publish(**state)
            due = time.monotonic() + 1.0 / rate_hz
            while time.monotonic() < due:
                self.executor.spin_once(timeout_sec=0.002)

    def activate(self, seconds=10.0):
        until = time.monotonic() + seconds
        while self.policy.trigger_activate() is not SUCCESS:
            assert time.monotonic() < until, self.policy._refusal
            self.run(0.5)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def enter_room(pd_bundle, start_node):
    rooms = []

    def enter():
        node = start_node(bundle=pd_bundle, goal="[0.0, 0.0, 1.5]")
        assert node.trigger_configure() is SUCCESS
        rooms.append(Room(node))
        return rooms[-1]

    yield enter
    for room in rooms:
        room.close()


def test_activation_needs_a_second_of_states_and_halting_obeys_the_slew(enter_room):
    room = enter_room()
    node, commands = room.policy, room.commands
    assert node.trigger_activate() is FAILURE, "no state has ever arrived"
    room.run(1.0)
    assert not commands, "an inactive node must not send commands"
    room.activate()
    room.run(1.0)
    node._safety.sent = np.array([0.73, 0.5, -0.5, 3.0])  # as far from holding as commands go
    assert node.trigger_deactivate() is SUCCESS
    room.run(0.5)
    count = len(commands)
    room.run(0.3)
    assert len(commands) == count and not node.is_commanding, "an inactive node is silent"
    assert commands[-1] == pytest.approx(HOLD, abs=0.15), "it ends level, with a thrust that carries"
    for before, after in zip(commands[-3:-1], commands[-2:], strict=True):
        assert all(abs(after[name] - before[name]) <= SLEW[name] + 1e-6 for name in SLEW)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"pos": (2000.0, 0.0, 500.0)}, "pose refused: it lies 2e+03 m from the origin"),
        ({"pos": (800.0, 0.0, 500.0)}, "are positions in millimetres?"),
        ({"pos": (0.5, 0.0, -1.5)}, "z points up (ENU), not down (NED)"),
        ({"quat": (1.0, 0.0, 0.0, 0.0)}, "the quaternion is in the order wxyz"),
        ({"noise": 0.0}, "its stamps go on, and its values have stood still"),
        ({"frame": "map"}, "it is in frame 'map', the policy's is 'world'"),
        ({"rate_hz": 12.0}, "Hz, 50 Hz are needed; raise its rate"),
    ],
)
def test_what_a_drone_shows_wrongly_refuses_activation(enter_room, state, said):
    room = enter_room()
    room.run(1.6, **state)
    assert room.policy.trigger_activate() is FAILURE
    assert said in room.policy._refusal


def test_deactivated_at_speed_it_brakes_until_the_state_is_slow(enter_room):
    room = enter_room()
    room.activate()
    room.run(0.3)
    assert room.policy.trigger_deactivate() is SUCCESS
    room.commands.clear()
    began = time.monotonic()
    while (moving := time.monotonic() - began) < 0.5:  # positions go with the velocity, or neither is believed
        room.run(0.01, pos=(2.0 + 2.0 * moving, 0.0, 0.5), velocity=(2.0, 0.0, 0.0))
    assert room.policy.is_commanding and room.commands[-1]["pitch"] == pytest.approx(-0.35, abs=0.01)
    room.run(0.5, pos=(3.0, 0.0, 0.5))
    assert not room.policy.is_commanding and room.commands[-1]["pitch"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ((1e6, 0.0, 1.0), "it is too far: 1e+06 m, more than 4 m"),
        ((2.0, 0.0, 50.0), "it is too far: 49.5 m"),
        ((1.0, 0.0, -1.0), "it lies under the floor"),
        ((np.nan, 0.0, 1.0), "it is not finite"),
    ],
)
def test_goals_that_no_drone_should_go_to_are_refused(enter_room, at, said):
    room = enter_room()
    room.run(0.5)
    before = room.policy._adapter._goal.copy()
    message = PoseStamped()
    message.pose.position.x, message.pose.position.y, message.pose.position.z = at
    message.pose.orientation.w = 1.0
    room.goal.publish(message)
    room.run(0.5)
    np.testing.assert_array_equal(room.policy._adapter._goal, before)
    assert said in room.policy._adapter.remark
    assert any(key.startswith("refused/goal/") for key in room.policy._figures(room.policy._adapter))


def test_a_computer_that_is_too_busy_is_said(pd_bundle, start_node):
    node = start_node(bundle=pd_bundle)
    assert node.trigger_configure() is SUCCESS
    said, loop = [], FixedRateLoop(0.02, lambda: None, pytest.fail)
    node._diagnostics, node._loop = SimpleNamespace(publish=lambda message: said.append(message.status[0])), loop
    for cycles, late in ((0, 0), (25, 0), (50, 1), (75, 9)):
        loop._cycles, loop._late = cycles, late
        node._publish_diagnostics()
    assert [status.level for status in said] == [b"\0", b"\0", b"\0", b"\1"]
    assert said[-1].message.endswith(
        "; 12% of the control cycles came late: the computer is too busy; stop other programs"
    )
    assert {item.key: item.value for item in said[-1].values}["late"] == "9"


@pytest.mark.slow
def test_autostart_flies_once_and_leaves_the_last_word_to_the_operator(pd_bundle):
    with Flight(pd_bundle, autostart="true") as rig:
        rig.spin_until(lambda: len(rig.truth) > 20, 10)
        assert rig.arm()
        rig.spin_until(lambda: rig.status.get("state") == "fly", 10)
        rig.spin_until(lambda: len(rig.commands) > 100, 10)
        assert rig.change(DEACTIVATE)
        rig.spin(0.5)
        count = len(rig.commands)
        rig.spin(2.0)
        assert len(rig.commands) == count, "a node that was deactivated must not start again by itself"
        assert rig.status["state"] == "inactive"
        rig.assert_commands_in_limits()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_flight_ends_the_process_holding(pd_bundle, number):
    with Flight(pd_bundle) as rig:
        rig.take_off()
        rig.policy.send_signal(number)
        rig.spin_until(lambda: rig.policy.poll() is not None, 8)
        rig.spin(0.3)
        assert rig.policy.returncode == 0
        last = rig.commands[-1]
        assert last["roll"] == last["pitch"] == last["yaw_rate"] == pytest.approx(0.0, abs=1e-6)
        assert last["thrust"] == pytest.approx(HOLD["thrust"], abs=0.15)
        rig.assert_commands_in_limits()


@pytest.mark.slow
def test_diagnostics_tell_what_an_operator_needs(pd_bundle):
    with Flight(pd_bundle) as rig:
        rig.take_off()
        rig.spin(0.6)
        wanted = {"state", "reason", "cycles", "late", "jitter_p50_ms", "jitter_p99_ms", "data_age_ms"}
        wanted |= {"latency_p50_ms", "latency_p99_ms", "messages_refused", "rss_mb", "torch_loaded"}
        assert wanted <= set(rig.status)
        assert rig.status["torch_loaded"] == "False"
        assert float(rig.status["rss_mb"]) < 250.0
