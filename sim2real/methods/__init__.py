"""Transfer methods by name: each one file, chosen by ``method:`` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sim2real.config import validate
from sim2real.registry import resolve

if TYPE_CHECKING:  # it brings torch, and the table alone needs none
    from sim2real.methods.base import Method

METHODS = {
    "adr": "sim2real.methods.adr:Adr",
    "epopt": "sim2real.methods.epopt:EpOpt",
    "nominal": "sim2real.methods.nominal:Nominal",
    "random_forces": "sim2real.methods.random_forces:RandomForces",
    "randomized": "sim2real.methods.randomized:Randomized",
    "rma": "sim2real.methods.rma:Rma",
    "up_osi": "sim2real.methods.up_osi:UpOsi",
}


def load_method(settings: Mapping[str, Any]) -> Method:
    """Make the method that ``settings`` name.

    Args:
        settings: ``name`` (a key of ``METHODS`` or ``module:Class``) and the method's own settings.

    Raises:
        ConfigError: No such method, or a wrong setting.
    """
    name = str(settings["name"])
    made = resolve(name, METHODS, "method")
    own = {key: value for key, value in settings.items() if key != "name"}
    return cast("Method", made(validate(made.Settings, own, f"method '{name}'")))
