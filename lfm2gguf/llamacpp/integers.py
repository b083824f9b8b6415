"""Integers between two bounds as a GBNF expression, digit by digit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

MOST_DIGITS = 100  # of a bound
DIGITS = 16  # of an integer without a bound, as in llama.cpp's own rule


def integer_bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the least and the greatest integer that a JSON schema allows; None: no bound.

    Bounds may be fractions, and exclusive (JSON Schema, validation, 6.2).

    Raises:
        ValueError: one is no number, or has too many digits.
    """
    given = {name: _bound(name, schema[name]) for name in _BOUNDS if name in schema}
    low = [math.ceil(given["minimum"])] if "minimum" in given else []
    if "exclusiveMinimum" in given:
        low.append(math.floor(given["exclusiveMinimum"]) + 1)
    high = [math.floor(given["maximum"])] if "maximum" in given else []
    if "exclusiveMaximum" in given:
        high.append(math.ceil(given["exclusiveMaximum"]) - 1)
    return max(low, default=None), min(high, default=None)


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _bound(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise ValueError(f"{name} must be a finite number, and is {value!r:.40}")
    if abs(value) >= 10**MOST_DIGITS:
        raise ValueError(f"{name} has more than {MOST_DIGITS} digits: leave it out, or bound less")
    return value


def _finite(value: int | float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def integers_between(low: int | None, high: int | None) -> str:
    """Return a GBNF expression for the integers from ``low`` to ``high``, both included.

    Raises:
        ValueError: there are none.
    """
    if low is not None and high is not None and low > high:
        raise ValueError(f"there is no integer from {low} to {high}")
    parts = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        parts.append(f'"-" ({_naturals(least, None if low is None else -low)})')
    if high is None or high >= 0:
        parts.append(_naturals(max(low or 0, 0), high))
    return " | ".join(parts)


def _naturals(low: int, high: int | None) -> str:
    """Return numbers without a sign or leading zeros: those of each length by themselves."""
    longest = max(len(str(low)), DIGITS) if high is None else len(str(high))
    parts = []
    for length in range(len(str(low)), longest + 1):
        first = max(low, 10 ** (length - 1) if length > 1 else 0)
        last = 10**length - 1 if high is None else min(high, 10**length - 1)
        parts.append(_same_length(str(first), str(last)))
    return " | ".join(parts)


def _same_length(low: str, high: str) -> str:
    """Return numbers of as many digits as both bounds have."""
    if not low:
        return ""
    if low[0] == high[0]:
        rest = _same_length(low[1:], high[1:])
        return f'"{low[0]}"' + (f" ({rest})" if rest else "")
    return " | ".join(_by_first_digit(low, high))


def _by_first_digit(low: str, high: str) -> Iterator[str]:
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    if low[1:] != "0" * rest:
        yield f'"{first}" ({_same_length(low[1:], "9" * rest)})'
        first += 1
    above = high[1:] != "9" * rest
    if first <= last - above:
        digits = f"[{first}-{last - above}]"
        yield digits + (f" [0-9]{{{rest}}}" if rest else "")
    if above:
        yield f'"{last}" ({_same_length("0" * rest, high[1:])})'
