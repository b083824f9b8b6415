"""Tool calls as LFM2 writes them, read by a parser and written back.

Two dialects stand between the markers: Pythonic, ``[f(x="1"), a.b(y=[1, None])]``, and JSON,
``[{"name": "f", "arguments": {"x": "1"}}]``. Nothing is ever evaluated: a value is a literal of
either language (``True`` or ``true``, ``None`` or ``null``) or the span is malformed.
Source: https://docs.liquid.ai, tool use; the members' chat templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lfm2gguf.chat.dialect import LFM2, Dialect


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


class MalformedError(ValueError):
    """The span is not a list of calls."""


def parse_calls(text: str) -> list[ToolCall]:
    """Parse a whole span, without its markers.

    Raises:
        MalformedError: the span is not a list of calls.

    """
    return list(_iter_calls(text))


def read_calls(text: str) -> tuple[list[ToolCall], MalformedError | None]:
    """Return the complete calls at the beginning of a span, and what is wrong after them."""
    calls: list[ToolCall] = []
    try:
        for call in _iter_calls(text):
            calls.append(call)  # noqa: PERF402 - what came before an error is kept
    except MalformedError as error:
        return calls, error
    return calls, None


def _iter_calls(text: str) -> Iterator[ToolCall]:
    if re.match(r"\s*\[?\s*\{", text):
        yield from _json_calls(text)
    else:
        yield from _Parser(text).calls()


def _json_calls(text: str) -> Iterator[ToolCall]:
    decoder = json.JSONDecoder()
    in_list = text.lstrip().startswith("[")
    at = text.index("[") + 1 if in_list else 0
    while True:
        at = _skip(text, at)
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise MalformedError(f"not JSON: {error}") from None
        yield _from_object(value)
        at = _skip(text, at)
        if in_list and text[at : at + 1] == ",":
            at += 1
            continue
        if in_list:
            at = _expect(text, at, "]")
        if text[at:].strip():
            raise MalformedError(f"unexpected text after the calls: {text[at:].strip()[:40]!r}")
        return


def _from_object(value: Any) -> ToolCall:
    """Read one JSON call; OpenAI's nesting and arguments given as a JSON string are accepted."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise MalformedError("a call needs a name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise MalformedError(f"arguments are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise MalformedError("arguments must be an object")
    return ToolCall(value["name"], arguments)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _expect(text: str, at: int, token: str) -> int:
    if at >= len(text):
        raise MalformedError(f"the text ends where {token!r} is expected")
    if not text.startswith(token, at):
        raise MalformedError(f"{token!r} expected at {text[at : at + 20]!r}")
    return at + len(token)


_NAME = re.compile(r"[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0",
    "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": "",
}  # fmt: skip
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}
_DEEPEST = 64


class _Parser:
    """Recursive descent over ``[name(key=literal, ...), ...]``.

    Python's own parser would do for most spans, but refuses ``from=`` and ``class=`` as
    argument names, ``true`` as a constant, and line breaks inside of quotes.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def calls(self) -> Iterator[ToolCall]:
        bracketed = self._take("[")
        while not (bracketed and self._take("]")):
            yield self._call()
            if not self._take(","):
                if bracketed:
                    self._expect("]")
                break
        if self._peek():
            raise MalformedError(f"unexpected text after the calls: {self.text[self.at :][:40]!r}")

    def _call(self) -> ToolCall:
        name = self._name()
        self._expect("(")
        arguments: dict[str, Any] = {}
        while not self._take(")"):
            key = self._name()
            self._expect("=")
            if key in arguments:
                raise MalformedError(f"{name}: the argument {key!r} is given twice")
            arguments[key] = self._value()
            if not self._take(","):
                self._expect(")")
                break
        return ToolCall(name, arguments)

    def _value(self, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise MalformedError(f"values nested deeper than {_DEEPEST}")
        if self._peek() in ("'", '"'):
            return self._strings()
        if self._take("["):
            return self._items("]", depth)
        if self._take("("):
            return self._items(")", depth)
        if self._take("{"):
            return self._object(depth)
        return self._scalar()

    def _items(self, close: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._take(close):
            items.append(self._value(depth + 1))
            if not self._take(","):
                self._expect(close)
                break
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not self._take("}"):
            key = self._value(depth + 1)
            if not isinstance(key, str):
                raise MalformedError(f"the key {key!r} of an object is not a string")
            self._expect(":")
            result[key] = self._value(depth + 1)
            if not self._take(","):
                self._expect("}")
                break
        return result

    def _scalar(self) -> Any:
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            digits = match[0].replace("_", "")
            try:
                return float(digits) if re.search(r"[.eE]", digits) else int(digits)
            except ValueError as error:  # more digits than Python turns into an integer
                raise MalformedError(str(error)) from None
        word = self._name()
        if word not in _WORDS:
            raise MalformedError(f"{word!r} is not a literal")
        return _WORDS[word]

    def _strings(self) -> str:
        """Read one string, or several side by side, which Python joins."""
        parts = [self._string()]
        while self._peek() in ("'", '"'):
            parts.append(self._string())
        return "".join(parts)

    def _string(self) -> str:
        triple = self.text[self.at : self.at + 3]
        quote = triple if triple in ('"""', "'''") else triple[0]
        self.at += len(quote)
        out: list[str] = []
        while not self.text.startswith(quote, self.at):
            if self.at >= len(self.text):
                raise MalformedError("the text ends inside of a string")
            char = self.text[self.at]
            self.at += 1
            out.append(self._escape() if char == "\\" else char)
        self.at += len(quote)
        # JSON writes what lies beyond the basic plane as two surrogates
        return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _escape(self) -> str:
        if self.at >= len(self.text):
            raise MalformedError("the text ends inside of an escape")
        char = self.text[self.at]
        self.at += 1
        if char not in _HEX_ESCAPES:
            return _ESCAPES.get(char, "\\" + char)
        digits = self.text[self.at : self.at + _HEX_ESCAPES[char]]
        self.at += len(digits)
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise MalformedError(f"\\{char}{digits} is not a character") from None

    # the scanner

    def _peek(self) -> str:
        self.at = _skip(self.text, self.at)
        return self.text[self.at : self.at + 1]

    def _take(self, token: str) -> bool:
        taken = self._peek() == token
        self.at += taken
        return taken

    def _expect(self, token: str) -> None:
        self._peek()
        self.at = _expect(self.text, self.at, token)

    def _name(self) -> str:
        self._peek()
        match = _NAME.match(self.text, self.at)
        if not match:
            raise MalformedError(f"a name is expected at {self.text[self.at :][:20]!r}")
        self.at = match.end()
        return match[0]


def write_calls(calls: Iterable[ToolCall], dialect: Dialect = LFM2) -> str:
    """Return calls the way the model writes them itself, markers included."""
    return dialect.write_calls((call.name, call.arguments) for call in calls)
