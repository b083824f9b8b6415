r"""Regular expressions of JSON schemas (``pattern``), read into a tree.

The syntax is ECMA-262's (22.2.1) as far as it describes regular languages; what Python's or
Rust's dialect reads differently is refused, so that an answer satisfies every one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.characters import ALL, DOT, Ranges, joined, named, negated, of

MOST_CHARACTERS = 2_000
MOST_NESTED = 50
MOST_REPETITIONS = 2_000


@dataclass(frozen=True)
class Characters:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True)
class Anchor:
    """The start of the string, or its end."""

    end: bool


@dataclass(frozen=True)
class Sequence:
    """One node after the other; none of them: the empty string."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """One of the nodes."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A node from ``least`` to ``most`` times; None: without end."""

    part: Node
    least: int
    most: int | None


Node = Characters | Anchor | Sequence | Choice | Repeat

ANYTHING = Repeat(Characters(ALL), 0, None)

_GROUPS = {
    "?=": "a lookahead", "?!": "a lookahead", "?<=": "a lookbehind", "?<!": "a lookbehind",
}  # fmt: skip
_PLAIN_GROUP = re.compile(r"\?:|\?P?<\w+>")
_COUNTS = re.compile(r"\{(\d+)(,?)(\d*)\}")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_REFUSED_ESCAPES = {
    "b": r"a word boundary (\b)", "B": r"a word boundary (\B)", "k": r"a backreference (\k)",
    **dict.fromkeys("123456789", "a backreference"),
    "p": r"a Unicode property (\p)", "P": r"a Unicode property (\P)",
    "A": r"\A (write ^)", "Z": r"\Z (write $)", "z": r"\z (write $)",
}  # fmt: skip


def refuse(pattern: str, reason: str) -> NoReturn:
    """Raise the error about a pattern."""
    shown = pattern if len(pattern) <= 60 else f"{pattern[:57]}..."
    raise OptionError(
        f"json_schema: pattern {shown!r}: {reason}; leave it out, or write a simpler pattern"
    )


def parse(pattern: str) -> Node:
    """Return the tree of a pattern.

    Raises:
        OptionError: it is malformed, too large, or no regular expression in the strict sense
            (lookarounds, backreferences, word boundaries).
    """
    if len(pattern) > MOST_CHARACTERS:
        refuse(pattern, f"it has more than {MOST_CHARACTERS} characters")
    parser = _Parser(pattern)
    node = parser.choice(0)
    if not parser.at_end:
        parser.refuse("a parenthesis closes that was not opened")
    return node


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0

    def refuse(self, reason: str) -> NoReturn:
        refuse(self._pattern, f"{reason} (at character {self._at + 1})")

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self._pattern, self._at)
        self._at = found.end() if found else self._at
        return found

    def _next(self) -> str:
        if self.at_end:
            self.refuse("it ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def choice(self, nested: int) -> Node:
        if nested > MOST_NESTED:
            self.refuse(f"it nests deeper than {MOST_NESTED} groups")
        parts = [self._sequence(nested)]
        while self._take("|"):
            parts.append(self._sequence(nested))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, nested: int) -> Node:
        parts: list[Node] = []
        while not self.at_end and self._pattern[self._at] not in "|)":
            parts.append(self._repeated(self._atom(nested)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, node: Node) -> Node:
        counts = self._quantifier()
        if counts is None:
            return node
        if isinstance(node, Anchor):
            self.refuse("an anchor is repeated")
        self._take("?")  # how eagerly it matches does not change what it matches
        least, most = counts
        if max(least, most or 0) > MOST_REPETITIONS:
            self.refuse(f"{max(least, most or 0)} repetitions, and {MOST_REPETITIONS} can be had")
        if most is not None and most < least:
            self.refuse(f"{least} to {most} repetitions")
        if self._take("+") or self._quantifier() is not None:
            self.refuse("a repetition is repeated")
        if isinstance(node, Repeat) and (node.least, node.most) == (0, 1):
            return Repeat(node.part, 0, most)  # the same strings, in fewer ways
        return Repeat(node, least, most)

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        if not (found := self._match(_COUNTS)):
            return None
        least, comma, most = found.groups()
        if len(least + most) > 20:
            self.refuse(f"more repetitions than can be had ({MOST_REPETITIONS})")
        return int(least), int(most) if most else (None if comma else int(least))

    def _atom(self, nested: int) -> Node:
        char = self._next()
        if char == "(":
            return self._group(nested)
        if char in "*+?" or (char == "{" and _COUNTS.match(self._pattern, self._at - 1)):
            self.refuse("there is nothing to repeat")
        simple: dict[str, Callable[[], Node]] = {
            ".": lambda: Characters(DOT),
            "^": lambda: Anchor(end=False),
            "$": lambda: Anchor(end=True),
            "[": lambda: Characters(self._class()),
            "\\": lambda: Characters(self._escape()[0]),
        }
        return simple[char]() if char in simple else Characters(self._plain(char))

    def _plain(self, char: str) -> Ranges:
        if 0xD800 <= ord(char) <= 0xDFFF:
            self.refuse("half of a surrogate pair")
        return of(char)

    def _group(self, nested: int) -> Node:
        if not self._match(_PLAIN_GROUP) and self._pattern.startswith("?", self._at):
            rest = self._pattern[self._at : self._at + 3]
            kinds = [said for sign, said in _GROUPS.items() if rest.startswith(sign)]
            self.refuse(kinds[-1] if kinds else f"a group of an unknown kind ({rest})")
        node = self.choice(nested + 1)
        if not self._take(")"):
            self.refuse("a parenthesis is not closed")
        return node

    def _class(self) -> Ranges:
        inverted = self._take("^")
        if self._take("]"):
            self.refuse("a class begins with ], which dialects read differently (write \\])")
        ranges: list[tuple[int, int]] = []
        letters: list[str] = []
        while not self._take("]"):
            low, letter = self._member()
            if letter:
                letters.append(letter)
            elif self._pattern.startswith("-", self._at) and self._range_follows():
                self._at += 1
                ranges.append(self._ends(low, *self._member()))
            else:
                ranges += low
        if inverted:
            return negated(joined(ranges), letters)
        return joined([*ranges, *(part for letter in letters for part in named(letter))])

    def _range_follows(self) -> bool:
        after = self._pattern[self._at + 1 : self._at + 3]
        return after[:1] != "]" and not re.match(r"\\[dDwWsS]", after)

    def _ends(self, low: Ranges, high: Ranges, letter: str) -> tuple[int, int]:
        if letter or high[0][0] < low[0][0]:
            self.refuse("a range of a class ends before it starts")
        return low[0][0], high[0][0]

    def _member(self) -> tuple[Ranges, str]:
        char = self._next()
        if char == "\\":
            return (of("\b"), "") if self._take("b") else self._escape()
        return self._plain(char), ""

    def _escape(self) -> tuple[Ranges, str]:
        """Return the set of an escape, and its letter if that names one."""
        if found := self._match(_HEX):
            return self._coded(int(next(filter(None, found.groups())), 16)), ""
        char = self._next()
        if char in _REFUSED_ESCAPES:
            self.refuse(_REFUSED_ESCAPES[char])
        if char in "dDwWsS":
            return named(char), char
        if char in _CONTROLS and not (char == "0" and self._pattern[self._at :][:1].isdigit()):
            return of(_CONTROLS[char]), ""
        if char.isalnum():
            self.refuse(f"an unknown escape (\\{char})")
        return self._plain(char), ""

    def _coded(self, code: int) -> Ranges:
        if 0xD800 <= code < 0xDC00 and (low := self._match(_LOW_SURROGATE)):
            code = 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if code > 0x10FFFF:
            self.refuse("a character beyond U+10FFFF")
        return self._plain(chr(code))
