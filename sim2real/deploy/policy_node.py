"""The policy node: a lifecycle node that flies a bundle over standard ROS 2 messages.

configure loads and verifies the bundle, activate flies, deactivate holds. Nothing moves before
activation. Run it as ``python -m sim2real.deploy.policy_node --ros-args -p bundle:=PATH``.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer
from rosgraph_msgs.msg import Clock

from sim2real.deploy.adapters import Adapter, Watchful, make_adapter
from sim2real.deploy.executor import run_node
from sim2real.deploy.messages import NEWEST, clock_message
from sim2real.errors import BundleError, Sim2RealError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.runtime.loop import TOO_LATE, FixedRateLoop, Lateness, Loop, StateLoop
from sim2real.runtime.observation import check_signals, measured_command
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.safety import SafetyFilter, SafetyState
from sim2real.types import Array

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_LATENCIES = 16384
_SETTLING_STEPS = 10
_LATE_WINDOW = 10  # diagnostics, 5 s
_LOOK_STEPS = 10  # control periods between looks at who else publishes


class PolicyNode(LifecycleNode):
    """Runs one bundle on one robot.

    Parameters: ``bundle`` (path), ``autostart`` (configure and activate by itself; false by default),
    ``trusted_modules`` (modules besides ours that a bundle may name), and those of the robot's adapter. Publishes the
    robot's commands and ``diagnostics`` at 2 Hz. With ``use_sim_time`` it steps once for every new state, and says on
    ``answered`` which one its command is for.

    Args:
        default_bundle: Used where the parameter ``bundle`` is not given.
    """

    def __init__(self, default_bundle: str = "") -> None:
        super().__init__("policy")
        self.declare_parameter("bundle", default_bundle)
        self.declare_parameter("autostart", False)
        self.declare_parameter("trusted_modules", [""])
        self._bundle: PolicyBundle | None = None
        self._adapter: Adapter | None = None
        self._runner: PolicyRunner
        self._safety: SafetyFilter
        self._loop: Loop | None = None
        self._latency = np.zeros(_LATENCIES)
        self._answered = self._looked = 0
        self._refusal = self._conflict = ""
        self._driver_lands = False
        self._lateness = Lateness(_LATE_WINDOW)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", 10)
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._answers = self.create_publisher(Clock, "answered", NEWEST) if simulated else None
        self.create_timer(0.5, self._publish_diagnostics, clock=SteadyClock(clock_type=ClockType.STEADY_TIME))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle, replay its golden trace, compare its signals with the robot's, open the topics."""
        try:
            bundle = PolicyBundle.load(str(self.get_parameter("bundle").value))
            replayed = verify(bundle)
            if not replayed.ok:
                raise BundleError(f"the golden trace does not replay here: {replayed.message}")
            trusted = [str(name) for name in self.get_parameter("trusted_modules").value or () if name]
            adapter = make_adapter(bundle, self, trusted)
            check_signals(bundle.spec.measured_signals(), adapter.provides)
        except Sim2RealError as error:
            self.get_logger().error(f"configure refused: {error}")
            return FAILURE
        adapter.open()
        self._bundle, self._adapter = bundle, adapter
        self._runner = bundle.runner()
        self._safety = SafetyFilter(bundle.robot, bundle.spec.control_dt)
        self._runner.step(adapter.signals())  # the first call of a network allocates
        gc.collect()
        gc.freeze()
        self.get_logger().info(f"bundle verified: {bundle.path}, commit {bundle.provenance.get('commit', 'unknown')}")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fly from now on; refused without a fresh state, so that the robot never starts blind."""
        assert self._adapter is not None and self._bundle is not None
        age = self._adapter.age_s()
        if not age <= 0.5:
            self._refusal = f"no fresh state, {_missing(self._adapter, age)}"
            self.get_logger().error(f"activate refused: {self._refusal}")
            return FAILURE
        signals = self._adapter.signals()
        if problems := self._problems(self._adapter, signals):
            self._refusal = "; ".join(problems)
            self.get_logger().error(f"activate refused: {self._refusal}")
            return FAILURE
        if remark := _remark(self._adapter):
            self.get_logger().warning(remark)
        if self._loop is not None:
            self._loop.stop()
        start = measured_command(self._bundle.spec, signals, within_limits=False)
        self._runner.reset(start=start)
        self._safety.activate(start[0])
        if isinstance(self._adapter, Watchful):
            self._adapter.begin()
        self._answered, self._refusal, self._conflict = 0, "", ""
        kind = FixedRateLoop if self._answers is None else StateLoop
        self._loop = kind(self._bundle.spec.control_dt, self._control, self._on_loop_error, self._adapter)
        self._loop.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brake while the state is good, then send hold; the driver's watchdog takes over from there."""
        self._safety.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the topics and forget the bundle."""
        self._halt()
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = self._bundle = None
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup; the node can be configured again."""
        return self.on_cleanup(state)

    def _problems(self, adapter: Adapter, signals: dict[str, Array]) -> list[str]:
        """Name what the robot shows that is not as the contract says."""
        outside = self._safety.outside(signals)
        watched = [*adapter.watch.problems(), *adapter.faults()] if isinstance(adapter, Watchful) else []
        return watched + ([outside] if outside else [])

    def _halt(self) -> None:
        if self._loop is None:
            return
        self._loop.stop()
        self._loop = None
        self._settle()

    def _settle(self) -> None:
        """Send hold, in as many steps as the slew rates ask for."""
        assert self._adapter is not None and self._bundle is not None
        self._safety.deactivate()
        for _ in range(_SETTLING_STEPS):
            self._adapter.send(self._safety.step(None, math.inf, {}))
            if self._safety.is_holding:
                return
            time.sleep(self._bundle.spec.control_dt)

    def _control(self) -> None:
        adapter, doubt = self._adapter, ""
        assert adapter is not None
        arrival = adapter.arrival_s()
        signals = adapter.signals()
        proposed = self._runner.step(signals)[0]
        before = self._safety.state
        if isinstance(adapter, Watchful):
            doubt = adapter.doubt()
            self._looked += 1
            if self._looked % _LOOK_STEPS == 0:
                self._conflict = adapter.watch.conflict()
                self._driver_lands = self._answers is None and self.count_publishers("driver_diagnostics") > 0
        sent = self._safety.step(proposed, adapter.age_s(), signals, doubt, self._conflict)
        if not (self._driver_lands and self._safety.state is SafetyState.LAND and self._safety.is_blind):
            adapter.send(sent)  # else the driver's watchdog lands the robot, with the state that it has itself
        self._runner.record_sent(sent[None])
        if self._answers is not None:
            self._answers.publish(clock_message(arrival))
        else:
            self._latency[self._answered % _LATENCIES] = time.monotonic() - arrival
            self._answered += 1
        if self._safety.state is not before:
            self._report_change()
        if self._safety.state is SafetyState.INACTIVE and self._safety.is_holding:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.stop()

    def _report_change(self) -> None:
        state, reason = self._safety.state, self._safety.reason
        text = f"{state.value}{': ' + reason if reason else ''}"
        if state is SafetyState.FLY:  # two calls: rclpy wants one severity for each line of code
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)

    def _on_loop_error(self, error: Exception) -> None:
        self.get_logger().error(f"the control loop failed and holds: {type(error).__name__}: {error}")
        self._settle()
        self._safety.reason = f"control loop failed: {error}"

    def _publish_diagnostics(self) -> None:
        status = DiagnosticStatus(name=self.get_fully_qualified_name(), message="not configured")
        values: dict[str, str] = {"rss_mb": f"{_rss_mb():.0f}", "torch_loaded": str("torch" in sys.modules)}
        if self._adapter is not None:
            values |= self._figures(self._adapter)
            flying = self._safety.state
            status.message = f"{flying.value}{': ' + self._safety.reason if self._safety.reason else ''}"
            trouble = flying in (SafetyState.HOLD, SafetyState.LAND)
            if flying is SafetyState.INACTIVE and self._refusal:
                trouble = True
                status.message += f"; activate refused: {self._refusal}"
            if warning := self._busy():
                trouble = True
                status.message += f"; {warning}"
                self.get_logger().warning(warning, throttle_duration_sec=5.0)
            status.level = DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK
            status.hardware_id = self._bundle.robot.name if self._bundle else ""
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _figures(self, adapter: Adapter) -> dict[str, str]:
        values = {
            "state": self._safety.state.value,
            "reason": self._safety.reason,
            "data_age_ms": f"{1e3 * adapter.age_s():.1f}",
            "messages_refused": str(adapter.refused),
            "remark": _remark(adapter),
            "activation": self._refusal,
        }
        if isinstance(adapter, Watchful):
            values |= {f"refused/{topic}/{why}": str(count) for (topic, why), count in adapter.watch.refused.items()}
        if self._loop is not None:
            figures = self._loop.figures()
            kept = self._latency[: min(self._answered, _LATENCIES)] * 1e3
            values |= {name: f"{value:.4g}" for name, value in vars(figures).items()}
            if len(kept):
                p50, p99, p999 = np.percentile(kept, (50, 99, 99.9))
                values |= {
                    "latency_p50_ms": f"{p50:.3f}",
                    "latency_p99_ms": f"{p99:.3f}",
                    "latency_p999_ms": f"{p999:.3f}",
                }
            for name, (value, std) in self._runner.report().items():
                values[f"estimate/{name}"] = f"{value:.5g} ± {std:.2g}"
        return values

    def _busy(self) -> str:
        """Warn of a computer that does not keep the control rate; nothing where it does."""
        if self._loop is None:
            return ""
        figures = self._loop.figures()
        late = self._lateness.update(figures.late, figures.cycles)
        if late <= TOO_LATE:
            return ""
        return f"{min(late, 1.0):.0%} of the control cycles came late: the computer is too busy; stop other programs"

    def destroy_node(self) -> None:
        """Hold, destroy the node and its lifecycle; rclpy keeps that, and all DDS threads, until it is collected."""
        self.close()
        super().destroy_node()
        self._state_machine = None

    @property
    def is_commanding(self) -> bool:
        """Tell whether the control loop runs: while active, and while it brakes after that."""
        return self._loop is not None

    def come_to_rest(self) -> bool:
        """Begin to brake, as after deactivation; call it until it is True."""
        if self._loop is not None and self._safety.state is not SafetyState.INACTIVE:
            self._safety.deactivate()
        return not self.is_commanding

    def close(self) -> None:
        """Hold, close the topics; harmless when closed."""
        self._halt()
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None


def _remark(adapter: Adapter) -> str:
    return str(getattr(adapter, "remark", ""))


def _missing(adapter: Adapter, age_s: float) -> str:
    """Why there is no fresh state, and what to do."""
    if remark := _remark(adapter):
        return remark
    if math.isfinite(age_s):
        streams = [channel.stream for channel in adapter.watch.channels] if isinstance(adapter, Watchful) else []
        if late := next(filter(None, (stream.old() for stream in streams)), ""):
            return late
        return f"the last one is {age_s:.1f} s old; start the driver again"
    if adapter.refused:
        return f"{adapter.refused} messages arrived and none could be used: they are not finite, or not rotations"
    return "none has arrived yet; start the driver or check topic names"


def _rss_mb() -> float:
    """Most memory this program has held, MB; getrusage would also count the program that started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmHWM:")), math.nan)


def _make(default_bundle: str) -> PolicyNode:
    node = PolicyNode(default_bundle)
    if node.get_parameter("autostart").value:
        if node.trigger_configure() is not SUCCESS:
            raise BundleError("autostart: configure was refused; see above")
        timer = node.create_timer(1.1, lambda: _activate_when_ready(node, timer))
    return node


def _activate_when_ready(node: PolicyNode, timer: Timer) -> None:
    """Try until it succeeds, and never again: who deactivates it later means it."""
    if node._adapter is None or not node._adapter.age_s() <= 0.5:
        return
    if node.is_commanding or node.trigger_activate() is SUCCESS:
        timer.cancel()


def main(argv: list[str] | None = None, default_bundle: str = "") -> int:
    """Run the node until SIGINT or SIGTERM; on either it brakes and holds first.

    Args:
        argv: Arguments with ROS 2 parameters; the process's own by default.
        default_bundle: Bundle to use where no parameter names one.
    """
    return run_node("policy", lambda: _make(default_bundle), argv, at_rest=PolicyNode.come_to_rest)


if __name__ == "__main__":
    raise SystemExit(main())
