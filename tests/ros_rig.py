"""A driver node and a policy node as processes, and a node in between that can break what it relays."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from onnx import TensorProto, helper, numpy_helper
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool

from sim2real.config import load_config
from sim2real.deploy.crazyflie_messages import from_legacy
from sim2real.robots import load_robot
from sim2real.runtime.bundle import write_bundle
from sim2real.runtime.flight_signals import flight_signals
from sim2real.runtime.geometry import tilt_of
from sim2real.runtime.golden import record_golden
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import PolicySpec, group_size
from sim2real.tasks import load_task

GOAL = (0.0, 0.0, 1.5)
LIMITS = load_robot("crazyflie").spec.commands


def make_pd_bundle(path):
    """A bundle whose network is one linear layer: a position controller for a 32 g drone, without training."""
    robot = load_robot("crazyflie")
    task = load_task({"name": "hover"}, robot)
    terms = task.observation()
    spec = PolicySpec(
        robot="crazyflie",
        task="hover",
        control_rate_hz=50,
        signals=task.signals_name,
        goal=task.goal,
        observation={"observation": terms},
        action=task.action(),
    )
    thrust, roll, pitch, yaw_rate = spec.action
    size = group_size(terms)
    weight = np.zeros((size, 4), np.float32)
    bias = np.zeros(4, np.float32)
    scale = {term.name: term.scale for term in terms}
    p, v, g, mass = 1 / scale["position_error"], 1 / scale["linear_velocity"], 9.81, 0.0325
    half_thrust = 0.5 * (thrust.high - thrust.low)
    weight[0, 2], weight[3, 2] = -4.0 * p / g / pitch.high, -3.0 * v / g / pitch.high
    weight[1, 1], weight[4, 1] = 4.0 * p / g / roll.high, 3.0 * v / g / roll.high
    weight[2, 0], weight[5, 0] = -mass * 6.0 * p / half_thrust, -mass * 4.0 * v / half_thrust
    heading = sum(term.size for term in terms[: [term.name for term in terms].index("heading_error")])
    weight[heading, 3] = -2.0 / scale["heading_error"] / yaw_rate.high
    bias[0] = (mass * g - 0.5 * (thrust.low + thrust.high)) / half_thrust
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["observation", "weight", "bias"], ["action"])],
        "pd",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    still = flight_signals(np.ones((1, 3)), np.array([[0.0, 0.0, 0.0, 1.0]]), np.zeros((1, 3)), np.zeros((1, 3)))
    still["heading_error"] = np.zeros((1, 1))
    golden = record_golden(PolicyRunner.from_onnx(spec, data), [still] * 20)
    provenance = {"commit": "pd", "config": load_config("nominal").model_dump(mode="json", by_alias=True)}
    return write_bundle(path, spec=spec, robot=robot.spec, provenance=provenance, policy_onnx=data, golden=golden)


# State that a transition leads to: configure, cleanup, activate, deactivate.
LEADS_TO = {1: 2, 2: 1, 3: 3, 4: 2}
FIRST_TRANSITION_STATE = 10  # configuring, and so on


def change_state(node, executor, name, transition, timeout_s=30.0):
    """Ask the lifecycle node ``name`` for a transition; whether it succeeded.

    A server that has just been found may not have found its client: it acts, and its answer is lost. So the
    caller waits a moment first, and asks for the state where no answer comes.
    """
    change = node.create_client(ChangeState, f"{name}/change_state")
    get = node.create_client(GetState, f"{name}/get_state")
    deadline = time.monotonic() + timeout_s
    try:
        while not (change.service_is_ready() and get.service_is_ready()):
            assert time.monotonic() < deadline, f"{name} does not come up"
            executor.spin_once(timeout_sec=0.05)
        settled = time.monotonic() + 0.5
        while time.monotonic() < settled:
            executor.spin_once(timeout_sec=0.05)
        request = ChangeState.Request()
        request.transition.id = transition
        answer = change.call_async(request)
        executor.spin_until_future_complete(answer, timeout_sec=8.0)
        if answer.done():
            return answer.result().success
        while time.monotonic() < deadline:
            state = get.call_async(GetState.Request())
            executor.spin_until_future_complete(state, timeout_sec=3.0)
            if state.done() and state.result().current_state.id < FIRST_TRANSITION_STATE:
                return state.result().current_state.id == LEADS_TO[transition]
        raise AssertionError(f"{name} does not answer to transition {transition}")
    finally:
        node.destroy_client(change)
        node.destroy_client(get)


class Rig:
    """Both nodes, the relay and the recordings; use it as a context manager.

    ``relay`` says what happens to the state on its way from the driver to the policy: ``pass``, ``stop``,
    ``frozen`` (old stamps on new messages) or ``nan``.
    """

    def __init__(self, bundle, seed=3):
        self.bundle, self.seed = bundle, seed
        self.relay = "pass"
        self.commands, self.truth, self.status = [], [], {}
        self._frozen_stamp = None
        self.context = rclpy.Context()

    def __enter__(self):
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rig", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        create = self.node.create_subscription
        self._out = {
            "pose": self.node.create_publisher(PoseStamped, "pose", 1),
            "twist": self.node.create_publisher(TwistStamped, "twist", 1),
        }
        create(PoseStamped, "raw_pose", lambda m: self._pass_on("pose", m, m.pose.position), 1)
        create(TwistStamped, "raw_twist", lambda m: self._pass_on("twist", m, m.twist.linear), 1)
        create(Twist, "cmd_vel_legacy", self._on_command, 100)
        create(Odometry, "ground_truth/odom", self._on_truth, 100)
        create(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)
        self.arm_client = self.node.create_client(SetBool, "arm")
        self.driver = self.start("driver_node", ["-p", f"seed:={self.seed}", *_remap("pose"), *_remap("twist")])
        self.policy = self.start_policy()
        self.spin_until(self.arm_client.service_is_ready, 30)
        return self

    def __exit__(self, *error):
        for process in (self.policy, self.driver):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in (self.policy, self.driver):
            try:
                process.wait(timeout=8)
            except subprocess.TimeoutExpired:
                process.kill()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def start(self, module, arguments):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"sim2real.deploy.{module}", "--ros-args", *arguments]
        return subprocess.Popen(command, env=environment)

    def start_policy(self):
        goal = "[" + ", ".join(map(str, GOAL)) + "]"
        return self.start("policy_node", ["-p", f"bundle:={self.bundle}", "-p", f"goal:={goal}"])

    def _pass_on(self, name, message, vector):
        if self.relay == "stop":
            return
        if self.relay == "nan":
            vector.x = math.nan
        if self.relay == "frozen":
            self._frozen_stamp = self._frozen_stamp or message.header.stamp
            message.header.stamp = self._frozen_stamp
        self._out[name].publish(message)

    def _on_command(self, m):
        self.commands.append(from_legacy(m.linear.x, m.linear.y, m.linear.z, m.angular.z))

    def _on_truth(self, m):
        p, q, v = m.pose.pose.position, m.pose.pose.orientation, m.twist.twist.linear
        tilt = float(tilt_of(np.array([q.x, q.y, q.z, q.w])))
        self.truth.append((time.monotonic(), np.array([p.x, p.y, p.z]), np.array([v.x, v.y, v.z]), tilt))

    def _on_diagnostics(self, message):
        self.status = {item.key: item.value for item in message.status[0].values}

    def spin(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.01)

    def spin_until(self, done, seconds):
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "timed out"
            self.executor.spin_once(timeout_sec=0.01)

    def change(self, transition):
        """1 configure, 2 cleanup, 3 activate, 4 deactivate; whether it succeeded."""
        return change_state(self.node, self.executor, "policy", transition)

    def activate(self, seconds=10):
        """Activate, again until a first state has arrived."""
        deadline = time.monotonic() + seconds
        while not self.change(3):
            assert time.monotonic() < deadline, "the policy node refuses to activate"
            self.spin(0.1)

    def arm(self, value=True):
        future = self.arm_client.call_async(SetBool.Request(data=value))
        self.spin_until(future.done, 10)
        return future.result().success

    def take_off(self):
        """Configure, arm, activate and fly to the goal."""
        assert self.change(1)
        self.spin_until(lambda: len(self.truth) > 20, 10)
        assert self.arm()
        self.activate()
        self.spin(3.5)
        assert self.distance() < 0.3, "it must be near the goal before anything is broken"
        self.truth.clear()

    def distance(self):
        return float(np.linalg.norm(self.truth[-1][1] - np.array(GOAL)))

    def assert_commands_in_limits(self):
        assert self.commands
        for limit in LIMITS:
            values = np.array([command[limit.name] for command in self.commands])
            assert np.isfinite(values).all()
            slack = 1e-5
            assert limit.low - slack <= values.min() and values.max() <= limit.high + slack, limit.name

    def assert_gentle(self, tilt_deg=45.0, sink=2.0):
        """Since ``take_off``: never tilted far, never falling fast."""
        assert np.rad2deg(max(tilt for *_, tilt in self.truth)) < tilt_deg
        assert min(v[2] for _, _, v, _ in self.truth) > -sink


def _remap(name):
    return ["-r", f"{name}:=raw_{name}"]
