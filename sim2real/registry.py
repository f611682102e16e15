"""The one door of all seams: a name from a table a reader can see, or ``module:Attribute`` of one's own."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sim2real.errors import ConfigError


def resolve(name: str, table: Mapping[str, str], kind: str) -> Any:
    """Import what ``name`` stands for.

    Args:
        name: A key of ``table``, or ``module:Attribute``; such a module may also lie in the current folder.
        table: Names to ``module:Attribute``.
        kind: What is looked for, for the error: ``task``.

    Raises:
        ConfigError: There is no such name, module or attribute; the message names what is close.
    """
    place = table.get(name, name)
    module, colon, attribute = place.partition(":")
    if not (colon and module and attribute):
        close = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(f"unknown {kind} '{name}'; {hint}known: {', '.join(sorted(table))}, or module:Class of yours")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"{kind} '{name}': there is no module '{module}'; install it, or run from the folder it is in"
        ) from error
    try:
        return getattr(imported, attribute)
    except AttributeError:
        raise ConfigError(f"{kind} '{name}': module '{module}' has no '{attribute}'") from None
