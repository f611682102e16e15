"""Robot drivers: the lowest layer, one file a robot, nothing of ``sim2real``."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from robot_drivers.limits import DriverError

if TYPE_CHECKING:
    from robot_drivers.driver import RobotDriver

DRIVERS = {
    "crazyflie_twin": "sim2real.targets.crazyflie_driver:CrazyflieTwinDriver",
    "franka": "robot_drivers.franka:FrankaDriver",
    "so101_twin": "sim2real.targets.so101_driver:So101TwinDriver",
}


def driver_settings(name: str) -> dict[str, Any]:
    """What the driver registered as ``name`` can be told, with defaults: its constructor's plain arguments.

    Raises:
        DriverError: No such driver.
    """
    parameters = inspect.signature(_driver_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, (str, int, float, bool))}


def load_driver(name: str, **settings: Any) -> RobotDriver:
    """Make the driver registered as ``name``; it is not connected yet.

    Args:
        name: A key of ``DRIVERS``.
        settings: The driver's own constructor arguments.

    Raises:
        DriverError: No such driver, or it does not know one of the settings.
    """
    made = _driver_class(name)
    try:
        return cast("RobotDriver", made(**settings))
    except TypeError as error:
        raise DriverError(f"driver '{name}' does not take these settings: {error}") from error


def _driver_class(name: str) -> Any:
    if name not in DRIVERS:
        raise DriverError(f"unknown driver '{name}'; known: {', '.join(sorted(DRIVERS))}")
    module, _, attribute = DRIVERS[name].partition(":")
    return getattr(import_module(module), attribute)
