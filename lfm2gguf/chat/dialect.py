"""How a family writes its conversations: the markers of turns, thinking and calls, as a value.

A dialect is a row of :data:`DIALECTS`; what reads or writes conversations takes it as a value. The
spelling of LFM2's: https://docs.liquid.ai, tool use; the members' chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CallStyle:
    """How calls are spelled between their markers.

    ``first`` and ``last`` stand around all of them. In ``opens``, which ``closes``, NAME is the
    function's name, in ``given`` KEY an argument's. ``literal`` spells a value.
    """

    first: str
    last: str
    opens: str
    closes: str
    given: str
    literal: Callable[[Any], str]

    def opening(self, name: str) -> str:
        """Return what stands before the arguments of a call."""
        return self.opens.replace("NAME", name)

    def assignment(self, key: str) -> str:
        """Return what stands before an argument's value."""
        return self.given.replace("KEY", key)

    def write(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return one call."""
        given = (self.assignment(key) + self.literal(x) for key, x in arguments.items())
        return f"{self.opening(name)}{', '.join(given)}{self.closes}"


@dataclass(frozen=True)
class Dialect:
    """The markers of a dialect, each pair as (start, end), and how it spells calls.

    ``ends`` are the tokens that end an answer.
    """

    turn: tuple[str, str]
    thinking: tuple[str, str]
    calls: tuple[str, str]
    ends: tuple[str, ...]
    style: CallStyle

    @property
    def own(self) -> tuple[str, ...]:
        """The markers that a model itself writes into its answers."""
        return (*self.calls, *self.thinking)

    def enclosed(self, written: Iterable[str]) -> str:
        """Return calls, each written already, between their markers."""
        start, end = self.calls
        return f"{start}{self.style.first}{', '.join(written)}{self.style.last}{end}"


def python_literal(value: Any) -> str:
    """Return a value as a literal of Python, its strings as JSON quotes them."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        pairs = (f"{python_literal(str(k))}: {python_literal(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    return repr(value)


PYTHONIC = CallStyle("[", "]", "NAME(", ")", "KEY=", python_literal)
LFM2 = Dialect(
    turn=("<|im_start|>", "<|im_end|>"),
    thinking=("<think>", "</think>"),
    calls=("<|tool_call_start|>", "<|tool_call_end|>"),
    ends=("<|im_end|>", "<|endoftext|>"),
    style=PYTHONIC,
)
DIALECTS = (LFM2,)


def dialect_of(template: str | None) -> Dialect:
    """Return the dialect of a chat template: the first whose calls it writes, or LFM2's."""
    found = (dialect for dialect in DIALECTS if dialect.calls[0] in (template or ""))
    return next(found, LFM2)
