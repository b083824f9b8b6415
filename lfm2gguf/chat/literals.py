"""Literals as models write them: Python's and JSON's, read without evaluating anything.

Python's own parser would do for most of them, but refuses ``true`` as a constant, ``from=`` as an
argument's name, leading zeros, and line breaks or unescaped quotes inside of quotes. All of them
occur: the tests of llama.cpp, vLLM, SGLang and Ollama for LFM2 hold examples.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SPACE = re.compile(r"\s*")
NAME = re.compile(r"[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
)
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_OPENING = re.compile(r"([rRuUfF]{0,2})('''|\"\"\"|'|\")")  # b"..." is not a text
_CLOSING = {
    quote: re.compile(rf"\\.|({quote})", re.DOTALL) for quote in ("'", '"', "'''", '"""')
}  # fmt: skip
_ADDED = re.compile(r"\+\s*(?=[rRuUfF]{0,2}['\"])")
_GOES_ON = re.compile(r"\s*[,)\]}:]")  # what can stand behind a string
_FIELD = re.compile(r"\{\{|\}\}|[{}]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0",
    "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": "",
}  # fmt: skip
_DEEPEST = 64

Ends = Mapping[str, list[int]]
Path = Sequence[int]


class MalformedError(ValueError):
    """The text is not what it ought to be."""


class RefusedError(MalformedError):
    """The text can be read, and what it says is not allowed."""


class Literals:
    """Recursive descent over a text from ``at`` on.

    A string ends at its first closing quote. With ``ends`` (:func:`possible_ends`) it need not,
    where nothing that can go on follows there (``'sed -n '1,5p' f'``): the ``path`` says for each
    such string, in their order, which of the later quotes it is, 0 beyond its end. ``chosen`` and
    ``choices`` tell, for those that were met, which it was and of how many.
    """

    def __init__(self, text: str, at: int = 0, ends: Ends | None = None, path: Path = ()) -> None:
        self.text, self.at = text, at
        self._ends, self._path = ends, path
        self.chosen: list[int] = []
        self.choices: list[int] = []

    def value(self, depth: int = 0) -> Any:
        """Read a value: None, a boolean, a number, a string, a list or a dict."""
        if depth > _DEEPEST:
            raise RefusedError(f"values nested deeper than {_DEEPEST}")
        self.peek()
        if _OPENING.match(self.text, self.at):
            return self._strings()
        if self.take("["):
            return self._items("]", depth)
        if self.take("("):
            return self._items(")", depth)
        if self.take("{"):
            return self._braces(depth)
        return self._scalar()

    def _items(self, close: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self.take(close):
            items.append(self.value(depth + 1))
            if not self.take(","):
                self.expect(close)
                break
        return items

    def _braces(self, depth: int) -> Any:
        """Read an object, or a set, which becomes a list: JSON has none."""
        if self.take("}"):
            return {}
        first = self.value(depth + 1)
        if self.peek() == ":":
            return self._object(first, depth)
        self.take(",")
        return [first, *self._items("}", depth)]

    def _object(self, key: Any, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while True:
            self.expect(":")
            if not isinstance(key, str):
                raise RefusedError(f"the key {key!r} of an object is not a string")
            result[key] = self.value(depth + 1)
            if self.take("}"):
                return result
            self.expect(",")
            if self.take("}"):
                return result
            key = self.value(depth + 1)

    def _scalar(self) -> Any:
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            return _number(match[0].replace("_", ""))
        word = self.name()
        if word not in _WORDS:
            raise MalformedError(f"{word!r} is not a literal")
        return _WORDS[word]

    def _strings(self) -> str:
        """Read one string, or several side by side or with a plus, which Python joins."""
        parts: list[str] = []
        while opening := _OPENING.match(self.text, self.at):
            parts.append(self._string(opening[1], opening[2], opening.end()))
            self.peek()
            if self._ends is None and (added := _ADDED.match(self.text, self.at)):
                self.at = added.end()
        # JSON writes what lies beyond the basic plane as two surrogates
        return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _string(self, kind: str, quote: str, start: int) -> str:
        end = self._end(quote, start)
        self.at = end + len(quote)
        body = self.text[start:end]
        if "r" not in kind.lower() and not _is_no_escape(body):
            body = _ESCAPE.sub(_unescaped, body)
        return _FIELD.sub(_without_field, body) if "f" in kind.lower() else body

    def _end(self, quote: str, start: int) -> int:
        found = _CLOSING[quote].finditer(self.text, start)
        first = next((match.start() for match in found if match[1]), None)
        if first is None:
            raise MalformedError("the text ends inside of a string")
        if self._ends is None or _GOES_ON.match(self.text, first + len(quote)):
            return first
        later = self._ends[quote]
        later = later[bisect.bisect_right(later, first) :]
        joined = _OPENING.match(self.text, first + len(quote))  # "a" "b": Python's one string
        options = [first, *later] if joined or not later else later
        turn = len(self.chosen)
        choice = self._path[turn] if turn < len(self._path) else 0
        self.chosen.append(choice)
        self.choices.append(len(options))
        return options[choice]

    # the scanner

    def peek(self) -> str:
        """Skip white space and return the next character, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def take(self, token: str) -> bool:
        """Consume a character if it is the next."""
        taken = self.peek() == token
        self.at += taken
        return taken

    def expect(self, token: str) -> None:
        """Consume a character."""
        if not self.take(token):
            rest = self.text[self.at : self.at + 20]
            found = f"{token!r} expected at {rest!r}"
            raise MalformedError(found if rest else f"the text ends where {token!r} is expected")

    def name(self) -> str:
        """Read a name, dotted or not."""
        self.peek()
        match = NAME.match(self.text, self.at)
        if not match:
            raise MalformedError(f"a name is expected at {self.text[self.at :][:20]!r}")
        self.at = match.end()
        return match[0]


def possible_ends(text: str) -> Ends:
    """Return, for each kind of quote, where one stands that may end a string."""
    behind = _GOES_ON.pattern
    found = {
        quote: re.finditer(rf"(?<!\\)(?:\\\\)*({quote})(?={behind})", text) for quote in _CLOSING
    }
    return {quote: [match.start(1) for match in matches] for quote, matches in found.items()}


def read_literal(text: str) -> Any:
    """Return the value that a text spells.

    Raises:
        RefusedError: the text is not one literal.

    """
    literals = Literals(text)
    try:
        value = literals.value()
    except MalformedError as error:
        raise RefusedError(str(error)) from None
    if literals.peek():
        raise RefusedError(f"unexpected text: {text[literals.at :][:40]!r}")
    return value


def _number(digits: str) -> int | float:
    """Return a number that JSON's readers take for the same: within the range of a double."""
    try:
        if re.match(r"[+-]?0[xXoObB]", digits):
            value: int | float = int(digits, 0)
        else:
            value = float(digits) if re.search(r"[.eE]", digits) else int(digits)
        finite = math.isfinite(float(value))
    except (OverflowError, ValueError):
        finite = False
    if not finite:
        raise RefusedError(f"{digits[:20]} is beyond the numbers of JSON")
    return value


def _is_no_escape(body: str) -> bool:
    r"""Say whether backslashes stand for themselves: Python refuses one of them as an escape.

    Such is ``C:\Users\name``, whose ``\n`` is no line break either.
    """
    return any(match[4] in ("x", "u", "U") for match in _ESCAPE.finditer(body))


def _unescaped(match: re.Match[str]) -> str:
    code, char = match[1] or match[2] or match[3], match[4]
    if code is None:
        return _ESCAPES.get(char, "\\" + char)
    try:
        return chr(int(code, 16))
    except (ValueError, OverflowError):
        raise MalformedError(f"{match[0]} is not a character") from None


def _without_field(match: re.Match[str]) -> str:
    if len(match[0]) == 1:
        raise RefusedError("an f-string with fields is not a literal")
    return match[0][0]
