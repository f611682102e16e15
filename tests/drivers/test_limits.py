"""Command limits and the watchdog, on hand-computed cases."""

from __future__ import annotations

import math

import pytest

from robot_drivers import DRIVERS, driver_settings, load_driver
from robot_drivers.limits import CommandLimits, DriverError, Limit, Watchdog, WatchdogStage


@pytest.fixture
def limits() -> CommandLimits:
    return CommandLimits(
        {"thrust": Limit(0.0, 0.7, 2.0), "roll": Limit(-0.5, 0.5, 100.0)}, {"thrust": 0.3, "roll": 0.0}
    )


def test_inside_passes_unchanged(limits: CommandLimits) -> None:
    assert limits.apply({"thrust": 0.35, "roll": -0.2}, 1.0) == {"thrust": 0.35, "roll": -0.2}


def test_range_and_slew(limits: CommandLimits) -> None:
    first = limits.apply({"thrust": 0.3, "roll": 3.0}, 1.0)
    assert first == {"thrust": 0.3, "roll": 0.5}
    # 20 ms at 2 N/s allow 0.04 N.
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 1.02)["thrust"] == pytest.approx(0.34)
    assert limits.apply({"thrust": 0.0, "roll": 0.0}, 1.04)["thrust"] == pytest.approx(0.30)


def test_a_pause_does_not_allow_a_jump(limits: CommandLimits) -> None:
    limits.apply({"thrust": 0.3, "roll": 0.0}, 1.0)
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 60.0)["thrust"] == pytest.approx(0.3 + 2.0 * 0.1)


def test_after_a_pause_it_goes_on_from_the_last_command(limits: CommandLimits) -> None:
    """Neither from zero nor from the start values."""
    for k in range(5):
        limits.apply({"thrust": 0.6, "roll": -0.4}, 1.0 + 0.1 * k)
    sent = limits.apply({"thrust": 0.0, "roll": -0.4}, 60.0)
    assert sent == pytest.approx({"thrust": 0.6 - 2.0 * 0.1, "roll": -0.4})


def test_two_commands_that_arrive_together_both_move_it(limits: CommandLimits) -> None:
    limits.apply({"thrust": 0.3, "roll": 0.0}, 1.0)
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 1.0)["thrust"] == pytest.approx(0.3 + 2.0 * 0.005)
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 0.9)["thrust"] == pytest.approx(0.3 + 2.0 * 0.010)


def test_reset_starts_from_the_start_values(limits: CommandLimits) -> None:
    for k in range(10):
        limits.apply({"thrust": 0.7, "roll": 0.0}, 1.0 + 0.1 * k)
    limits.reset()
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 3.0)["thrust"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "command",
    [
        {"thrust": math.nan, "roll": 0.0},
        {"thrust": 0.3, "roll": math.inf},
        {"thrust": 0.3},
        {"thrust": 0.3, "roll": 0.0, "yaw": 0.0},
    ],
)
def test_invalid_commands_are_refused_and_change_nothing(limits: CommandLimits, command: dict[str, float]) -> None:
    limits.apply({"thrust": 0.3, "roll": 0.0}, 1.0)
    with pytest.raises(DriverError):
        limits.apply(command, 1.02)
    assert limits.apply({"thrust": 0.7, "roll": 0.0}, 1.02)["thrust"] == pytest.approx(0.34)


def test_watchdog_stages() -> None:
    watchdog = Watchdog()
    assert watchdog.stage(100.0) is WatchdogStage.IDLE
    watchdog.feed(100.0)
    stages = [watchdog.stage(100.0 + silence) for silence in (0.0, 0.19, 0.21, 0.99, 1.0, 9.0)]
    assert [stage.value for stage in stages] == ["ok", "ok", "hold", "hold", "land", "land"]
    exact = Watchdog(0.25, 1.0)
    exact.feed(100.0)
    assert exact.stage(100.25) is WatchdogStage.HOLD
    watchdog.feed(110.0)
    assert watchdog.stage(110.1) is WatchdogStage.OK
    watchdog.reset()
    assert watchdog.stage(120.0) is WatchdogStage.IDLE


def test_watchdog_refuses_times_in_the_wrong_order() -> None:
    for hold_after_s, land_after_s in ((1.0, 0.5), (0.5, 0.5), (0.0, 1.0)):
        with pytest.raises(ValueError, match="hold_after_s < land_after_s"):
            Watchdog(hold_after_s, land_after_s)


def test_limits_and_start_values_are_of_the_same_components() -> None:
    with pytest.raises(ValueError, match=r"limits are of \['a'\], start values of \['b'\]"):
        CommandLimits({"a": Limit(0.0, 1.0, 1.0)}, {"b": 0.0})


def test_registry_names_what_it_knows() -> None:
    with pytest.raises(DriverError, match="crazyflie_twin"):
        load_driver("crazyfly")
    with pytest.raises(DriverError, match="does not take these settings"):
        load_driver(next(iter(DRIVERS)), colour="red")


class OwnDriver:
    def __init__(self, port: str = "none") -> None:
        self.port = port


def test_a_driver_of_ones_own_needs_no_entry() -> None:
    assert driver_settings("test_limits:OwnDriver") == {"port": "none"}
    assert load_driver("test_limits:OwnDriver", port="usb").port == "usb"  # type: ignore[attr-defined]
    with pytest.raises(DriverError, match="there is no module 'nowhere'"):
        load_driver("nowhere:Driver")
    with pytest.raises(DriverError, match="has no 'Nobody'"):
        load_driver("test_limits:Nobody")
