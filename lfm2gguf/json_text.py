"""JSON texts that people bring: the one place that parses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DEEPEST = 100  # lists and objects in one another; what transformers writes has no ten


def parse_json(
    text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Parse a JSON text whose value is flat enough for whatever walks through it later.

    ``pairs`` makes an object of its keys and values, as ``object_pairs_hook`` of :mod:`json`. How
    deep that module itself reads depends on Python's version and on who calls.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nests deeper than :data:`DEEPEST`.

    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEEPEST}") from None
    if too_deep(value):
        raise ValueError(f"it nests deeper than {DEEPEST}")
    return value


def kind_of(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


def too_deep(value: Any) -> bool:
    """Return whether a value nests deeper than :data:`DEEPEST`.

    To walk through one that does may end in a RecursionError, and so may comparing, showing and
    writing it.
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [x for x in level if isinstance(x, dict | list)]
        if not level:
            return False
        level = [y for x in level for y in (x.values() if isinstance(x, dict) else x)]
    return True
