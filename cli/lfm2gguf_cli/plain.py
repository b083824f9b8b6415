"""Values that need no pydantic: nothing given, texts, defaults, plain numbers.

Typer has pydantic convert every value of a command, and loading that takes longer than all else of
the command line. Here what is of its parameter's kind already stays what it is, and digits are
read. The rest is left to Typer, which words what is wrong with it, too.
"""

from __future__ import annotations

import re
from typing import Any

NUMBERS = {int: r"-?[0-9]{1,15}", float: r"-?[0-9]{1,15}(\.[0-9]{1,15})?"}


def keep_plain(param: Any) -> None:
    """Let a parameter of Typer's keep values that are of its kind already."""
    if hasattr(param, "get_runtime_param"):  # Typer has none where it does not use pydantic
        converter = _Plain(param.get_runtime_param)
        param.get_runtime_param = lambda: converter


class _Plain:
    """What Typer asks for a value: its own way to it, where there is not a shorter one."""

    def __init__(self, typers: Any) -> None:
        self._typers = typers

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the command gets it."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        kind = param.type_descriptor
        if kind.parameter_info.parser is None:
            if type(value) is kind.annotation:
                return value
            if kind.annotation == list[str] and not isinstance(value, str):
                return list(value)
            if type(value) is int and kind.annotation is float:
                return float(value)
            if (number := _number(value, kind)) is not None:
                return number
        return self._typers().coerce(value, param=param, ctx=ctx)


def _number(value: Any, kind: Any) -> int | float | None:
    """Return the number that a text says; None where it is none, or out of the option's range."""
    pattern = NUMBERS.get(kind.annotation) if isinstance(value, str) else None
    if pattern is None or not re.fullmatch(pattern, value):
        return None
    number: int | float = kind.annotation(value)
    low, high = kind.parameter_info.min, kind.parameter_info.max
    inside = (low is None or low <= number) and (high is None or number <= high)
    return number if inside else None
