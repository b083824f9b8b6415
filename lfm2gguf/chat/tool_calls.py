"""Tool calls as LFM2 writes them, read by a parser and written back.

Two dialects stand between the markers: Pythonic, ``[f(x="1"), a.b(y=[1, None])]``, and JSON,
``[{"name": "f", "arguments": {"x": "1"}}]``. Nothing is ever evaluated: a value is a literal of
either language (``True`` or ``true``, ``None`` or ``null``) or the span is malformed.
Source: https://docs.liquid.ai, tool use; the members' chat templates.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.literals import (
    NAME,
    Literals,
    MalformedError,
    RefusedError,
    possible_ends,
    read_literal,
)


@dataclass(frozen=True)
class ToolCall:
    """A function the model wants called: ``name`` may be dotted."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class BadCall:
    """A span that is unfinished, malformed, or not what its schema allows; never executed.

    ``call`` is there where the span could be read and only its tool does not allow it.
    """

    text: str
    reason: str
    call: ToolCall | None = None


class CallReader:
    """Reads the calls of a span while its text comes.

    A call that can be read is final as soon as a comma or a bracket follows it: whatever comes
    later, it is not taken back.
    """

    def __init__(self) -> None:
        self.text = ""
        self._at = 0  # behind the last call that was read
        self._lexed, self._depth = 0, 0  # as far as brackets were counted, and how many are open
        self._quote = ""  # of the string that is open there
        self._unreadable = False  # the next call, whose brackets are closed
        self._budget = [_MOST_READ]

    def feed(self, new: str) -> list[ToolCall]:
        """Take new text and return the calls that are certain now."""
        self.text += new
        calls: list[ToolCall] = []
        while not self._unreadable and self._closes():
            if (read := self._next(_FOLLOWS)) is None:
                self._unreadable = True
                break
            calls.append(read)
            self._lexed, self._depth = self._at, 0
        return calls

    def _closes(self) -> bool:
        """Count brackets; return whether those of the next call are closed and one follows.

        Only then is it worth reading, which a long span would otherwise be at every comma. Each
        character is looked at once, however small the pieces are in which a text comes.
        """
        if self._quote and not self._string_ends():
            return False
        if not self._depth:
            self._lexed = max(self._lexed, _start(self.text, self._at))
        for match in _LEXEMES.finditer(self.text, self._lexed):
            if match[0] in ("'", '"'):
                self._quote, self._lexed = match[0], match.end()
                self._string_ends()
                return False
            step = _DEPTH.get(match[0], 0)
            if step < 0 and self._depth + step <= 0:
                return self._depth + step == 0 and bool(_FOLLOWS.match(self.text, match.end()))
            self._depth += step
            self._lexed = match.end()
        self._lexed = len(self.text)
        return False

    def _string_ends(self) -> bool:
        """Pass over an open string, as far as it is there; return whether it ends."""
        if match := _INSIDE[self._quote].match(self.text, self._lexed):
            self._lexed = match.end()
        if not self.text.startswith(self._quote, self._lexed):
            return False
        self._lexed, self._quote = self._lexed + 1, ""
        return True

    def close(self, *, whole: bool = True) -> list[ToolCall | BadCall]:
        """Return the rest: calls, and what cannot be read.

        Of a text that is not ``whole``, nothing is guessed.
        """
        items: list[ToolCall | BadCall] = []
        while (start := _start(self.text, self._at)) < len(self.text):
            if (read := self._next(_ENDS)) is not None:
                items.append(read)
                continue
            problem = _problem(self.text, start)
            guess = whole and not isinstance(problem, RefusedError)
            if guess and (found := _nested(self.text, start, self._budget)):
                return items + found
            items.append(self._skip(start, str(problem), whole))
        return items

    def _next(self, follows: re.Pattern[str]) -> ToolCall | None:
        parser = _Parser(self.text, _start(self.text, self._at))
        try:
            call = parser.call()
        except MalformedError:
            return None
        if not follows.match(self.text, parser.at):
            return None
        self._at = parser.at
        return call

    def _skip(self, start: int, reason: str, whole: bool) -> BadCall:
        """Pass over a call that cannot be read: to its own end where that is plain."""
        end = end_of_call(self.text, start)
        if end is None and not whole:
            reason = "the answer ends inside of a tool call"
        plain = end is not None and _ENDS.match(self.text, end)
        self._at = end if end is not None and plain else len(self.text)
        return BadCall(self.text[start : self._at].strip(), reason)


def read_calls(text: str) -> tuple[list[ToolCall], list[BadCall]]:
    """Return the calls of a whole span, without its markers, and what of it cannot be read.

    Where quotes are nested without escapes, a reading counts if it is the only one that has as
    many calls; one that takes a call for a part of a string has fewer.
    """
    reader = CallReader()
    items = [*reader.feed(text), *reader.close()]
    calls = [item for item in items if isinstance(item, ToolCall)]
    return calls, [item for item in items if isinstance(item, BadCall)]


def parse_calls(text: str) -> list[ToolCall]:
    """Parse a whole span, without its markers.

    Raises:
        MalformedError: the span is not a list of calls.

    """
    calls, bad = read_calls(text)
    if bad:
        raise MalformedError(bad[0].reason)
    return calls


_BETWEEN = re.compile(r"[\s,;\[\]]*")
_FOLLOWS = re.compile(r"\s*[,;\]]")
_ENDS = re.compile(r"\s*(?:[,;\]]|\Z)|\s*\n\s*(?:\{|[^\W\d][\w.-]*\()")
_LEXEMES = re.compile(
    r"'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\""
    r"|'(?:\\.|[^\\'])*'|\"(?:\\.|[^\\\"])*\"|[()\[\]{}'\"]",
    re.DOTALL,
)
_INSIDE = {quote: re.compile(rf"(?:\\.|[^\\{quote}])*", re.DOTALL) for quote in "'\""}
_DEPTH = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}
_MOST_READ = 400_000  # characters, in all the ways that are tried


def _start(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def end_of_call(text: str, start: int = 0) -> int | None:
    """Return where the brackets that open first are closed again, or None if they are not."""
    depth = 0
    for match in _LEXEMES.finditer(text, start):
        if match[0] in ("'", '"'):
            return None
        step = _DEPTH.get(match[0], 0)
        depth += step
        if step < 0 and depth <= 0:
            return match.end() if depth == 0 else None
    return None


class _Parser(Literals):
    """Reads ``name(key=literal, **{"key": literal})``, or JSON's form of it."""

    def call(self) -> ToolCall:
        if self.peek() == "{":
            return _from_object(self.value())
        name = self.name()
        self.expect("(")
        arguments: dict[str, Any] = {}
        while not self.take(")"):
            if self.text.startswith("**", self.at):
                self._unpack(name, arguments)
            else:
                self._argument(name, arguments)
            if not self.take(","):
                self.expect(")")
                break
        return ToolCall(name, arguments)

    def _argument(self, name: str, arguments: dict[str, Any]) -> None:
        key = self.name()
        self.expect("=")
        if key in arguments:
            raise RefusedError(f"{name}: the argument {key!r} is given twice")
        arguments[key] = self.value()

    def _unpack(self, name: str, arguments: dict[str, Any]) -> None:
        self.at += len("**")
        value = self.value()
        if not isinstance(value, dict):
            raise RefusedError(f"{name}: only an object can stand behind **")
        arguments.update(value)

    def rest(self) -> list[tuple[str, ToolCall]]:
        """Read all calls from here to the end, each with its text."""
        found: list[tuple[str, ToolCall]] = []
        while (start := _start(self.text, self.at)) < len(self.text):
            self.at = start
            call = self.call()
            found.append((self.text[start : self.at], call))
            if not _ENDS.match(self.text, self.at):
                raise MalformedError(f"unexpected text: {self.text[self.at :][:40]!r}")
        return found


def _nested(text: str, start: int, budget: list[int]) -> list[ToolCall | BadCall]:
    """Return what the readings with the most calls agree on, if any reading is possible."""
    readings = _readings(text, start, budget)
    most = max(map(len, readings), default=0)
    columns = zip(*(reading for reading in readings if len(reading) == most), strict=True)
    return [
        same[0][1] if all(other == same[0] for other in same) else BadCall(same[0][0], _AMBIGUOUS)
        for same in columns
    ]


_AMBIGUOUS = "its quotes can be read in more than one way: those inside of a text need a backslash"


def _readings(text: str, start: int, budget: list[int]) -> list[list[tuple[str, ToolCall]]]:
    """Return every way in which the rest can be read as calls; none if the budget runs out."""
    ends = possible_ends(text)
    found: list[list[tuple[str, ToolCall]]] = []
    path: list[int] = []
    while budget[0] > 0:
        parser = _Parser(text, start, ends, path)
        with contextlib.suppress(MalformedError):
            found.append(parser.rest())
        budget[0] -= parser.at - start
        path = parser.chosen
        while path and path[-1] + 1 >= parser.choices[len(path) - 1]:
            path.pop()
        if not path:
            return found
        path[-1] += 1
    return []


def _problem(text: str, start: int) -> MalformedError:
    """Return why a call cannot be read."""
    parser = _Parser(text, start)
    try:
        parser.call()
    except MalformedError as error:
        return error
    return MalformedError(f"unexpected text after a call: {text[parser.at :].strip()[:40]!r}")


_ARGUMENTS = ("arguments", "parameters", "args", "input")


def _from_object(value: Any) -> ToolCall:
    """Read one JSON call; OpenAI's nesting and arguments given as a JSON string are accepted."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise RefusedError("a call needs a name")
    named = next((key for key in _ARGUMENTS if key in value), None)
    if named is None and (others := value.keys() - {"name", "id", "type"}):
        raise RefusedError(f"a call's arguments are not under {', '.join(sorted(others))!r}")
    arguments = value[named] if named else None
    if isinstance(arguments, str) and arguments.strip():
        arguments = read_literal(arguments)
    if not isinstance(arguments or {}, dict):
        raise RefusedError("arguments must be an object")
    return ToolCall(value["name"], arguments or {})


def write_calls(calls: Iterable[ToolCall | BadCall], dialect: Dialect = LFM2) -> str:
    """Return calls the way the model writes them itself, markers included; bad ones as text.

    A name that is no name in Python has the call written in JSON, an argument's stands behind
    ``**``: so what is written is read as the same calls.
    """
    return dialect.enclosed(
        _written(call, dialect) if isinstance(call, ToolCall) else call.text for call in calls
    )


def _written(call: ToolCall, dialect: Dialect) -> str:
    style, arguments = dialect.style, call.arguments
    if not NAME.fullmatch(call.name):
        return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
    odd = {key: value for key, value in arguments.items() if not NAME.fullmatch(key)}
    if not odd:
        return style.write(call.name, arguments)
    plain = [style.assignment(k) + style.literal(v) for k, v in arguments.items() if k not in odd]
    given = ", ".join([*plain, f"**{style.literal(odd)}"])
    return f"{style.opening(call.name)}{given}{style.closes}"
