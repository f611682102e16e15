"""Options that several commands share: described once, by a function that makes one value of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints


def takes(
    make: Callable[..., Any], parameter: str, unknown: Mapping[str, Any] = {}
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command the options of ``make`` in place of ``parameter``, which gets what ``make`` returns.

    Args:
        make: Its parameters are options, with typer's annotations and defaults.
        parameter: Name of the command's parameter.
        unknown: Stand-ins for names in annotations that are imported for type checking only.
    """
    options = _parameters(make, unknown)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [known for known in _parameters(command, unknown) if known.name != parameter]

        def run(**given: Any) -> None:
            described = {option.name: given.pop(option.name) for option in options}
            command(**{parameter: make(**described)}, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {known.name: known.annotation for known in (*own, *options)}
        return run

    return decorate


def _parameters(function: Callable[..., Any], unknown: Mapping[str, Any]) -> list[inspect.Parameter]:
    """Parameters by keyword, with annotations as objects."""
    if hasattr(function, "__signature__"):
        return list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function, localns=dict(unknown), include_extras=True)
    return [
        known.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[known.name])
        for known in inspect.signature(function).parameters.values()
    ]
