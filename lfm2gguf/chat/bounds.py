"""How much a chat template may do: steps, seconds of its thread, and the size of what it makes.

A template comes with a file, from anywhere. Jinja's sandbox keeps it from the process, not from
its time and memory: two loops over ``range(99999)``, or ``'a' * 10**9``, stop a server. So every
loop, call, filter and operator of a template counts as a step here, and what could grow is
measured before it does.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

STEPS = 500_000  # of a rendering; LFM2.5's template takes some 5 for a message
SECONDS = 2.0  # of the thread's own time
SIZE = 1 << 24  # characters of a value, or of a prompt; or items side by side
ITEMS = 300_000  # of a value, those within others counted as often as they are written
BITS = 1 << 16  # of a whole number
SOURCE = 1 << 20  # characters of a template


class TooMuch(Exception):  # noqa: N818 - what it says, not what it is
    """A template takes more than it may."""


class _Meter(threading.local):
    """What the rendering of this thread has taken so far."""

    depth, steps, until = 0, 0, 0.0


_meter = _Meter()


@contextlib.contextmanager
def metered() -> Iterator[None]:
    """Count from zero inside; a rendering within a rendering counts to the outer one."""
    if not _meter.depth:
        _meter.steps, _meter.until = 0, time.thread_time() + SECONDS
    _meter.depth += 1
    try:
        yield
    finally:
        _meter.depth -= 1


def step() -> None:
    """Count a step.

    Raises:
        TooMuch: that was one too many, or too late.

    """
    _meter.steps += 1
    if _meter.steps > STEPS:
        raise TooMuch(f"it takes more than {STEPS} steps")
    if not _meter.steps % 64:
        _check_time()


def _check_time() -> None:
    if time.thread_time() > _meter.until:
        raise TooMuch(f"it takes more than {SECONDS:g} s")


def each(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of a loop, each a step."""
    for item in items:
        step()
        yield item


def allow(size: int) -> None:
    """Check a size before something becomes so large.

    Raises:
        TooMuch: it is more than :data:`SIZE`.

    """
    if size > SIZE:
        raise TooMuch(f"it makes more than {SIZE} characters or items of a value")


def concat(pieces: Iterable[str]) -> str:
    """Join what a template, a macro or a block has written."""
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        allow(size)
        kept.append(piece)
    return "".join(kept)


def size_of(value: Any) -> int:
    """Return about how many characters a value has when it is written.

    Raises:
        TooMuch: more than :data:`SIZE`, as where lists hold one list many times.

    """
    total, count, rest = 0, 0, [value]
    while rest:
        item = rest.pop()
        count += 1
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, Mapping):
            rest += item.keys()
            rest += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            rest += item
        elif hasattr(item, "_Namespace__attrs"):  # jinja2.runtime.Namespace: may hold itself
            raise TooMuch("it writes a whole namespace")
        if count + len(rest) > ITEMS:
            raise TooMuch(f"it makes a value of more than {ITEMS} items")
    if count > 1000:
        _check_time()
    allow(total + count)
    return total + count


def built(value: Any) -> Any:
    """Return a list, tuple or dict that a template has made, if it may be so large."""
    size_of(value)
    return value


# --- what makes more than it is given ---------------------------------------------------------

_WIDTH = re.compile(r"(?:%[-+ #0]*|[:.)<>=^+-][ #0]*)(\d+)")


def _product(*values: Any) -> int:
    product: int = 1
    for value in values:
        amount = abs(value) if isinstance(value, int) else size_of(value)
        product *= max(1, int(amount))
    return product


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any) -> int:
    return size_of(text) + (size_of(text) // max(1, len(str(old)))) * size_of(new)


def _formatted(form: Any, *values: Any) -> int:
    """Estimate ``%`` and ``format``: every field may hold all values, and be as wide as written."""
    text = str(form)
    fields = 1 + text.count("%") + text.count("{")
    widths: int = sum(int(digits[:9]) for digits in _WIDTH.findall(text))
    given = "*" in text or text.count("{") > text.count("}{") + 1  # widths among the values
    stars: int = sum(abs(v) for v in _flat(values) if isinstance(v, int)) if given else 0
    return len(text) + fields * (size_of(values) + stars) + widths


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple):
            yield from value
        else:
            yield value


_GROWS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "expandtabs"), _product),
    **dict.fromkeys(("join", "translate", "to_bytes"), _product),
    **dict.fromkeys(("indent", "batch", "slice", "tojson"), _product),
    "round": lambda value, precision=0, *_: _product(precision, 256),
    "replace": _replaced,
    **dict.fromkeys(("format", "format_map"), _formatted),
}
# Filters that look at the outside of a value alone.
_SHALLOW = {
    *("length", "count", "first", "last", "default", "d", "items", "list", "map", "select"),
    *("reject", "selectattr", "rejectattr", "attr", "safe", "reverse"),
}


def check_call(name: str, *values: Any) -> None:
    """Count the call of a filter or a method of a value, and check what it would make.

    Raises:
        TooMuch: more than it may.

    """
    step()
    if name in _GROWS:
        allow(_GROWS[name](*values))
    elif name not in _SHALLOW:
        size_of(values)


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Count an operator, and check what it would make.

    Raises:
        TooMuch: more than it may.

    """
    step()
    if isinstance(left, int) and isinstance(right, int):
        _check_integers(operator, left, right)
    elif operator == "%" and isinstance(left, str):
        allow(_formatted(left, right))
    elif operator == "*":
        allow(_product(*(len(v) if hasattr(v, "__len__") else v for v in (left, right))))
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        allow(len(left) + len(right))


def _check_integers(operator: str, left: int, right: int) -> None:
    bits = left.bit_length() * abs(right) if operator == "**" else 0
    if max(bits, left.bit_length() + right.bit_length()) > BITS:
        raise TooMuch(f"it makes numbers of more than {BITS} bits")
