"""Robot drivers: the lowest layer, one file a robot, nothing of ``sim2real``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from robot_drivers.limits import DriverError

if TYPE_CHECKING:
    from robot_drivers.driver import RobotDriver

DRIVERS = {
    "crazyflie_twin": "robot_drivers.crazyflie_twin:CrazyflieTwinDriver",
}


def load_driver(name: str, **settings: Any) -> RobotDriver:
    """Make the driver registered as ``name``; it is not connected yet.

    Args:
        name: A key of ``DRIVERS``.
        settings: The driver's own constructor arguments.

    Raises:
        DriverError: No such driver, or it does not know one of the settings.
    """
    if name not in DRIVERS:
        raise DriverError(f"unknown driver '{name}'; known: {', '.join(sorted(DRIVERS))}")
    module, _, attribute = DRIVERS[name].partition(":")
    try:
        return cast("RobotDriver", getattr(import_module(module), attribute)(**settings))
    except TypeError as error:
        raise DriverError(f"driver '{name}' does not take these settings: {error}") from error
