"""The cmd_vel_legacy convention against a transcription of what server and firmware do with the numbers."""

from __future__ import annotations

import math

import pytest

from sim2real.deploy.crazyflie_messages import MAX_PWM, from_legacy, to_legacy
from sim2real.robots import load_robot

LIMITS = {command.name: command for command in load_robot("crazyflie").spec.commands}


def flown(linear_x: float, linear_y: float, linear_z: float, angular_z: float) -> tuple[float, float, float, float]:
    """PWM, and roll, pitch, yaw rate in REP 103, degrees, that a Crazyflie flies for the message's numbers."""
    # crazyflie_server.cpp, cmd_vel_legacy_changed
    roll, pitch, yaw_rate, pwm = linear_y, -linear_x, angular_z, min(max(linear_z, 0.0), 60000.0)
    # crtp_commander_rpyt.c: attitudeRate.yaw = -values->yaw; kalman_core.c: attitude.pitch is minus the REP 103 pitch
    return pwm, roll, -pitch, -yaw_rate


def test_signs_and_units_as_flown() -> None:
    pwm, roll, pitch, yaw_rate = flown(*to_legacy(0.4, 0.1, 0.2, 0.3))
    assert pwm == pytest.approx(0.4 / 0.8 * 65535)
    assert [math.radians(x) for x in (roll, pitch, yaw_rate)] == pytest.approx([0.1, 0.2, 0.3])


def test_positive_pitch_is_positive_linear_x() -> None:
    assert to_legacy(0.3, 0.0, math.radians(10.0), 0.0).linear_x == pytest.approx(10.0)


def test_there_and_back() -> None:
    command = {"thrust": 0.31, "roll": -0.4, "pitch": 0.25, "yaw_rate": -1.5}
    assert from_legacy(*to_legacy(**command)) == pytest.approx(command)


def test_the_drivers_thrust_limit_fits_into_the_message() -> None:
    assert to_legacy(LIMITS["thrust"].high, 0.0, 0.0, 0.0).linear_z == pytest.approx(MAX_PWM, rel=0.005)
    assert to_legacy(LIMITS["thrust"].high, 0.0, 0.0, 0.0).linear_z < MAX_PWM
    assert to_legacy(2.0, 0.0, 0.0, 0.0).linear_z == MAX_PWM
    assert to_legacy(-1.0, 0.0, 0.0, 0.0).linear_z == 0.0


def test_not_finite_stays_visible() -> None:
    assert math.isnan(to_legacy(math.nan, 0.0, 0.0, 0.0).linear_z)
    assert math.isnan(from_legacy(math.nan, 0.0, 0.0, 0.0)["pitch"])
