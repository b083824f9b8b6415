"""Arguments that are one value or several: one is as good as a list of one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from os import PathLike
from typing import Any


def several(given: Any | Iterable[Any]) -> tuple[Any, ...]:
    """Return what was given as a tuple: of one text, path or type, or of any iterable of them."""
    return (given,) if isinstance(given, str | bytes | PathLike | Enum) else tuple(given)
