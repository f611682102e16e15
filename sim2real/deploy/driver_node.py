"""The driver node: one robot behind standard ROS 2 messages, with hard limits and a watchdog.

Run it as ``python -m sim2real.deploy.driver_node``.
"""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from robot_drivers import driver_settings, load_driver
from robot_drivers.driver import RobotDriver, SimulatedRobot
from robot_drivers.limits import DriverError, Watchdog, WatchdogStage
from sim2real.deploy.driver_topics import fill_pose, fill_twist, make_topics
from sim2real.deploy.executor import positive_parameter, run_node
from sim2real.deploy.messages import NEWEST

# A command that comes back changed by more than rounding was clamped.
_ROUNDING = 1e-6


class DriverNode(Node):
    """Publishes a robot's state at a fixed rate and passes commands on to it.

    Topics of the robot are those of :mod:`sim2real.deploy.driver_topics`; besides ``ground_truth/odom`` where it is
    simulated, and ``driver_diagnostics``. Offers ``arm`` and ``reset`` (disarmed, under the parameter ``condition``
    as it is then, with the parameter ``seed`` if it was changed and the next seed otherwise; simulated robots only).

    Parameters: ``driver``, ``rate_hz``, and what the driver takes (``airframe``, ``condition``, ``seed``, ``puck``).

    Args:
        settings: Parameter values that replace the defaults; for tests.

    Raises:
        ConfigError: ``rate_hz`` is no rate.
        DriverError: The driver cannot be made or connected.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        overrides = [Parameter(name, value=value) for name, value in (settings or {}).items()]
        super().__init__("driver", parameter_overrides=overrides)
        self._seed = self._asked_seed = int(self.declare_parameter("seed", 0).value)
        self._rate_hz = positive_parameter(self, "rate_hz", 100.0)
        name = str(self.declare_parameter("driver", "crazyflie_twin").value)
        known = driver_settings(name)
        wanted = {key: self.declare_parameter(key, default).value for key, default in known.items() if key != "seed"}
        self._driver: RobotDriver = load_driver(name, **wanted, **({"seed": self._seed} if "seed" in known else {}))
        self._simulated = self._driver if isinstance(self._driver, SimulatedRobot) else None
        self._watchdog = Watchdog()
        self._stage = WatchdogStage.IDLE
        # Commands, services and the state thread's watchdog act on the robot one at a time.
        self._lock = threading.Lock()
        self._armed = False
        self._counts = dict.fromkeys(("commands", "refused", "clamped", "read_errors", "late"), 0)
        self._odom = self.create_publisher(Odometry, "ground_truth/odom", NEWEST) if self._simulated else None
        self._diagnostics = self.create_publisher(DiagnosticArray, "driver_diagnostics", 10)
        self._driver.connect()
        self._topics = make_topics(self, self._driver.read(), self._on_command)
        self.create_service(SetBool, "arm", self._on_arm)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_timer(1.0, self._publish_diagnostics)
        self._closing = threading.Event()
        # A thread on an absolute schedule keeps its period; an rclpy timer waits for callbacks.
        self._thread = threading.Thread(target=self._publish_states, name="driver_state", daemon=True)
        self._thread.start()

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
            self._armed = request.data
            self._watchdog.reset()
        response.success, response.message = True, "armed" if request.data else "disarmed"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._simulated is None:
            response.success, response.message = False, "a real robot cannot be reset; put it at its start by hand"
            return response
        with self._lock:
            wanted = int(self.get_parameter("seed").value)
            self._seed = self._seed + 1 if wanted == self._asked_seed else wanted
            self._asked_seed = wanted
            try:
                self._simulated.reset(self._seed, str(self.get_parameter("condition").value))
            except DriverError as error:
                response.success, response.message = False, str(error)
                return response
            self._armed = False
            self._watchdog.reset()
        response.success, response.message = True, f"seed {self._seed}"
        return response

    def _publish_states(self) -> None:
        period = 1.0 / self._rate_hz
        due = time.monotonic()
        while not self._closing.wait(max(0.0, due - time.monotonic())):
            try:
                self._watch()
                self._publish_state()
            except DriverError as error:
                self._counts["read_errors"] += 1
                self.get_logger().error(f"no state: {error}", throttle_duration_sec=1.0)
            due += period
            behind = time.monotonic() - due
            if behind > period:  # skip what was missed rather than send it in a burst
                self._counts["late"] += 1
                due += period * int(behind / period)

    def _watch(self) -> None:
        with self._lock:
            stage = self._watchdog.stage(time.monotonic()) if self._armed else WatchdogStage.IDLE
            if stage is WatchdogStage.HOLD:
                self._driver.hold()
            elif stage is WatchdogStage.LAND:
                self._driver.land()
            changed, self._stage = stage is not self._stage, stage
        if changed and stage in (WatchdogStage.HOLD, WatchdogStage.LAND):
            self.get_logger().warning(f"no command arrives; watchdog: {stage.value}")

    def _publish_state(self) -> None:
        state = self._driver.read()
        stamp = self.get_clock().now().to_msg()
        self._topics.publish(state, stamp)
        if self._odom is not None and self._simulated is not None:
            truth = self._simulated.truth()
            odom = Odometry(child_frame_id="base")
            odom.header.stamp, odom.header.frame_id = stamp, "world"
            fill_pose(odom.pose.pose, truth)
            fill_twist(odom.twist.twist, truth)
            self._odom.publish(odom)

    def _publish_diagnostics(self) -> None:
        status = DiagnosticStatus(name="driver", hardware_id=str(self.get_parameter("driver").value))
        troubled = self._stage in (WatchdogStage.HOLD, WatchdogStage.LAND)
        status.level = DiagnosticStatus.WARN if troubled else DiagnosticStatus.OK
        status.message = f"no commands: {self._stage.value}" if troubled else "armed" if self._armed else "disarmed"
        figures = {"armed": self._armed, "watchdog": self._stage.value, "seed": self._seed, **self._counts}
        status.values = [KeyValue(key=key, value=str(value)) for key, value in figures.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        argv: Arguments with ROS 2 parameters (``--ros-args -p airframe:=cf2x_P250``); the process's own by default.

    Returns:
        0 after a requested end, 1 if the driver could not be started.
    """
    return run_node("driver", DriverNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
