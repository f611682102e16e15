"""Robot drivers: the lowest layer, one file a robot, nothing of ``sim2real``."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from robot_drivers.limits import DriverError

if TYPE_CHECKING:
    from robot_drivers.driver import RobotDriver

DRIVERS = {
    "franka": "robot_drivers.franka:FrankaDriver",
    "target": "sim2real.targets.driver:TargetDriver",
    # Old names, for one release.
    "crazyflie_twin": "sim2real.targets.driver:crazyflie_twin",
    "so101_twin": "sim2real.targets.driver:so101_twin",
}

SDKS = {"franka": "franky", "target": "mujoco"}  # the package that each needs


def driver_settings(name: str) -> dict[str, Any]:
    """Settings of the driver ``name``, with defaults: its constructor's plain arguments.

    Raises:
        DriverError: No such driver.
    """
    parameters = inspect.signature(_driver_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, (str, int, float, bool))}


def load_driver(name: str, **settings: Any) -> RobotDriver:
    """Make the driver ``name``; it is not connected yet.

    Args:
        name: A key of ``DRIVERS``, or ``module:Class`` of one's own.
        settings: The driver's own constructor arguments.

    Raises:
        DriverError: No such driver, or it does not know one of the settings.
    """
    made = _driver_class(name)
    try:
        inspect.signature(made).bind(**settings)
    except TypeError as error:
        raise DriverError(f"driver '{name}' does not take these settings: {error}") from error
    return cast("RobotDriver", made(**settings))


def _driver_class(name: str) -> Any:
    module, colon, attribute = DRIVERS.get(name, name).partition(":")
    if not (colon and module and attribute):
        raise DriverError(f"unknown driver '{name}'; known: {', '.join(sorted(DRIVERS))}, or module:Class of yours")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise DriverError(f"driver '{name}': there is no module '{module}'; install it, or run where it is") from error
    except AttributeError:
        raise DriverError(f"driver '{name}': module '{module}' has no '{attribute}'") from None
