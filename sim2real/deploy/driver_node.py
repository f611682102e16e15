"""The driver node: one robot behind standard ROS 2 messages, with hard limits and a watchdog.

Run it as ``python -m sim2real.deploy.driver_node``.
"""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import threading
import time
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from robot_drivers import driver_settings, load_driver
from robot_drivers.driver import CountsLost, RobotDriver, SimulatedRobot
from robot_drivers.limits import DriverError, Watchdog, WatchdogStage
from sim2real.deploy.driver_topics import fill_pose, fill_twist, make_topics
from sim2real.deploy.executor import positive_parameter, run_node
from sim2real.deploy.lockstep import Lockstep
from sim2real.deploy.messages import NEWEST
from sim2real.runtime.loop import TOO_LATE, Lateness

# A command that comes back changed by more than rounding was clamped.
_ROUNDING = 1e-6
_LATE_WINDOW = 5  # diagnostics, 5 s
_KEPT_TRUTHS = 1000  # in lockstep, until they are received
_LOOK_CYCLES = 10  # between looks at who publishes commands
_OWN = ("seed", "stepped")  # settings of drivers that the node decides


class DriverNode(Node):
    """Publishes a robot's state at a fixed rate and passes commands on to it.

    Topics of the robot are those of :mod:`sim2real.deploy.driver_topics`; besides ``ground_truth/odom`` where it is
    simulated, with ``ground_truth/failed`` when that changes, and ``driver_diagnostics``. Offers ``arm`` and ``reset``
    (disarmed, under the parameter ``condition`` as it is then, with the parameter ``seed`` if it was set and the
    next seed otherwise; simulated robots only).

    Parameters: ``driver``, ``rate_hz`` of states, and what the driver takes (a target: ``robot``, ``task``,
    ``variant``, ``condition``, ``seed`` and more). With ``lockstep`` a simulated robot waits for the policy, see
    :mod:`sim2real.deploy.lockstep`; ``rate_hz`` is the control rate then.

    Args:
        settings: Parameter values that replace the defaults; for tests.

    Raises:
        ConfigError: ``rate_hz`` is no rate.
        DriverError: The driver cannot be made or connected.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        overrides = [Parameter(name, value=value) for name, value in (settings or {}).items()]
        super().__init__("driver", parameter_overrides=overrides)
        self._seed = int(self.declare_parameter("seed", 0).value)
        self._asked_seed: int | None = None
        self._rate_hz = positive_parameter(self, "rate_hz", 100.0)
        lockstep = bool(self.declare_parameter("lockstep", False).value)
        self._driver = self._make_driver(lockstep)
        self._simulated = self._driver if isinstance(self._driver, SimulatedRobot) else None
        if lockstep and self._simulated is None:
            raise DriverError("lockstep is for simulated robots; this driver moves on the wall clock only")
        self._watchdog = Watchdog()
        self._stage = WatchdogStage.IDLE
        # Commands, services and the state thread's watchdog act on the robot one at a time.
        self._lock = threading.Lock()
        self._armed = False
        self._commanders = 0
        self._counts = dict.fromkeys(("commands", "refused", "clamped", "read_errors", "cycles", "late"), 0)
        if self._simulated:
            quality = QoSProfile(depth=_KEPT_TRUTHS if lockstep else 1)
            self._odom = self.create_publisher(Odometry, "ground_truth/odom", quality)
            self._failure = self.create_publisher(Bool, "ground_truth/failed", NEWEST)
        self._failed: bool | None = None
        self._late, self._lost = Lateness(_LATE_WINDOW), Lateness(_LATE_WINDOW)
        self._diagnostics = self.create_publisher(DiagnosticArray, "driver_diagnostics", 10)
        self._driver.connect()
        self._lockstep: Lockstep | None = None
        if lockstep:
            period_s = 1.0 / self._rate_hz
            self._lockstep = Lockstep(self, period_s, self._publish_state, self._step, lambda: self._armed)
        on_command = self._on_command if self._lockstep is None else self._lockstep.on_command
        self._topics = make_topics(self, self._driver.read(), on_command)
        self.create_service(SetBool, "arm", self._on_arm)
        self.create_service(Trigger, "reset", self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(1.0, self._publish_diagnostics)
        self._closing = threading.Event()
        # A thread on an absolute schedule keeps its period; an rclpy timer waits for callbacks.
        self._thread = threading.Thread(target=self._run, name="driver_state", daemon=True)
        self._thread.start()

    def _make_driver(self, lockstep: bool) -> RobotDriver:
        name = str(self.declare_parameter("driver", "target").value)
        known = driver_settings(name)
        wanted = {key: self.declare_parameter(key, default).value for key, default in known.items() if key not in _OWN}
        if "variant" in known and (airframe := str(self.declare_parameter("airframe", "").value)):
            self.get_logger().warning("parameter 'airframe' is an old name; use 'variant'")
            wanted["variant"] = airframe
        if "task" in known and self.declare_parameter("puck", False).value:
            self.get_logger().warning("parameter 'puck' is an old name; use 'task', here 'push'")
            wanted["task"] = "push"
        wanted |= {"seed": self._seed} if "seed" in known else {}
        return load_driver(name, **wanted, **({"stepped": True} if lockstep else {}))

    def close(self) -> None:
        """Stop the state thread, cut the actuators and close the link; harmless when closed."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            self._driver.disconnect()

    def destroy_node(self) -> None:
        """As :meth:`close`, then leave ROS 2."""
        self.close()
        super().destroy_node()

    def _on_command(self, command: dict[str, float]) -> None:
        with self._lock:
            try:
                if self._commanders > 1:
                    raise DriverError(f"{self._commanders} nodes publish commands; stop all but one")
                sent = self._driver.command(command)
            except DriverError as error:
                self._counts["refused"] += 1
                self.get_logger().warning(f"command refused: {error}", throttle_duration_sec=1.0)
                return
            self._counts["commands"] += 1
            self._counts["clamped"] += any(abs(sent[name] - command[name]) > _ROUNDING for name in sent)
            self._watchdog.feed(time.monotonic())

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            try:
                self._driver.arm(request.data)
            except DriverError as error:
                response.success, response.message = False, str(error)
                return response
            if request.data is not self._armed:  # arming what is armed must not keep a silent pilot's robot going
                self._watchdog.reset()
            self._armed = request.data
        response.success, response.message = True, "armed" if request.data else "disarmed"
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "seed":
                self._asked_seed = int(parameter.value)
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._simulated is None:
            response.success, response.message = False, "a real robot cannot be reset; put it at its start by hand"
            return response
        with self._lock:
            self._seed = self._seed + 1 if self._asked_seed is None else self._asked_seed
            self._asked_seed = None
            try:
                condition = self.get_parameter("condition").value if self.has_parameter("condition") else None
                self._simulated.reset(self._seed, condition or None)
            except DriverError as error:
                response.success, response.message = False, str(error)
                return response
            self._armed = False
            self._watchdog.reset()
        response.success, response.message = True, f"seed {self._seed}"
        return response

    def _step(self, command: dict[str, float]) -> None:
        """Act on a command for one control period of simulated time."""
        self._on_command(command)
        if self._simulated is not None:
            self._simulated.advance(1.0 / self._rate_hz)

    def _run(self) -> None:
        if self._lockstep is not None:
            self._lockstep.run(self._closing)
        else:
            self._publish_states()

    def _publish_states(self) -> None:
        period = 1.0 / self._rate_hz
        due = time.monotonic()
        while not self._closing.wait(max(0.0, due - time.monotonic())):
            try:
                self._watch()
                self._publish_state(self.get_clock().now().to_msg())
            except DriverError as error:
                self._counts["read_errors"] += 1
                self.get_logger().error(f"no state: {error}", throttle_duration_sec=1.0)
            self._counts["cycles"] += 1
            due += period
            behind = time.monotonic() - due
            if behind > period:  # skip what was missed rather than send it in a burst
                self._counts["late"] += int(behind / period)
                due += period * int(behind / period)

    def _watch(self) -> None:
        if self._counts["cycles"] % _LOOK_CYCLES == 0:
            self._commanders = self.count_publishers(self._topics.commands.topic_name)
        with self._lock:
            stage = self._watchdog.stage(time.monotonic()) if self._armed else WatchdogStage.IDLE
            if stage is WatchdogStage.HOLD:
                self._driver.hold()
            elif stage is WatchdogStage.LAND:
                self._driver.land()
            changed, self._stage = stage is not self._stage, stage
        if changed and stage in (WatchdogStage.HOLD, WatchdogStage.LAND):
            why = "no command arrives" if self._commanders < 2 else f"{self._commanders} nodes publish commands"
            self.get_logger().warning(f"{why}; watchdog: {stage.value}")

    def _publish_state(self, stamp: Time) -> None:
        """Publish the truth, then the state: a policy's cycle begins with it."""
        if self._simulated is not None:
            if self._simulated.failed is not self._failed:
                self._failed = self._simulated.failed
                self._failure.publish(Bool(data=self._failed))
            truth = self._simulated.truth()
            odom = Odometry(child_frame_id="base")
            odom.header.stamp, odom.header.frame_id = stamp, "world"
            fill_pose(odom.pose.pose, truth)
            fill_twist(odom.twist.twist, truth)
            self._odom.publish(odom)
        self._topics.publish(self._driver.read(), stamp)

    def _publish_diagnostics(self) -> None:
        status = DiagnosticStatus(name="driver", hardware_id=str(self.get_parameter("driver").value))
        troubled = self._stage in (WatchdogStage.HOLD, WatchdogStage.LAND)
        status.message = f"no commands: {self._stage.value}" if troubled else "armed" if self._armed else "disarmed"
        if self._commanders > 1:
            troubled = True
            status.message += f"; {self._commanders} nodes publish commands, none of them is obeyed"
        if warning := self._slow():
            troubled = True
            status.message += f"; {warning}"
            self.get_logger().warning(warning, throttle_duration_sec=5.0)
        status.level = DiagnosticStatus.WARN if troubled else DiagnosticStatus.OK
        figures = {"armed": self._armed, "watchdog": self._stage.value, "seed": self._seed, **self._counts}
        if isinstance(self._driver, CountsLost):
            figures["lost_s"] = f"{self._driver.lost_s:.3f}"
        status.values = [KeyValue(key=key, value=str(value)) for key, value in figures.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _slow(self) -> str:
        """Warn of a computer that does not keep real time; nothing where it does."""
        if self._lockstep is not None:
            return ""
        late = self._late.update(self._counts["late"], self._counts["cycles"] + self._counts["late"])
        lost_s = self._driver.lost_s if isinstance(self._driver, CountsLost) else 0.0
        lost = self._lost.update(lost_s, time.monotonic())
        if lost > TOO_LATE:
            return (
                f"the simulated robot stood still for {lost:.0%} of the time: its simulator cannot keep real time; "
                "stop other programs, or use lockstep"
            )
        return f"{late:.0%} of the states came late: the computer is too busy" if late > TOO_LATE else ""


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        argv: Arguments with ROS 2 parameters (``--ros-args -p variant:=cf2x_P250``); the process's own by default.

    Returns:
        0 after a requested end, 1 if the driver could not be started.
    """
    return run_node("driver", DriverNode, argv, (DriverError,))


if __name__ == "__main__":
    raise SystemExit(main())
