"""Which of a test's many cases the fast lane runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet


# What only the weekly lane runs; the fast lane leaves it out as well (see conftest.py).
WEEKLY = (pytest.mark.weekly,)


def slow_but(fast: Iterable[object], values: Iterable[object]) -> list[ParameterSet]:
    """Return a test's parameters, all but the ``fast`` ones marked slow."""
    kept = set(fast)
    return [
        pytest.param(value, marks=() if value in kept else pytest.mark.slow) for value in values
    ]
