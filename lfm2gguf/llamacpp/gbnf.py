"""GBNF as llama.cpp's parser reads it, into the rules that its sampler follows.

A port of ``llama_grammar_parser`` (``src/llama-grammar.cpp`` at 0c1e57098), with bounds: what a
client writes is read here before it reaches C code. Left out are tokens (``<[1]>``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.characters import Ranges, joined, without

MOST_BYTES = 100_000
MOST_ELEMENTS = 20_000  # characters, classes and references, repetitions written out
MOST_NESTED = 200  # parentheses
MOST_REPETITIONS = 2_000  # llama.cpp's MAX_REPETITION_THRESHOLD, a product where they nest
EVERY: Ranges = ((0, 0x1FFFFF),)  # what its decoder of UTF-8 can return

Element = Ranges | int  # one character of a set, or a rule
Sequence = list[Element]

_NAME = re.compile(r"[a-zA-Z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_COUNTS = re.compile(r"(\d+)([ \t\r\n]*)(?:(,)[ \t\r\n]*(\d*)[ \t\r\n]*)?\}")
_HEX = {"x": 2, "u": 4, "U": 8}
_SHORT = {"t": "\t", "r": "\r", "n": "\n", **{char: char for char in '\\"[]-'}}


@dataclass
class Rules:
    """A grammar's rules, one element after the other, so that a place in one is a number.

    ``elements[i]`` is a set of characters, the number of a rule, or None where an alternative
    ends. ``starts`` holds where each rule's alternatives begin, ``rule_of`` the rule of a place.
    """

    root: int
    names: list[str]
    elements: list[Element | None] = field(default_factory=list)
    starts: list[list[int]] = field(default_factory=list)
    rule_of: list[int] = field(default_factory=list)

    def ends(self, place: int) -> bool:
        """Say whether an alternative ends here."""
        return self.elements[place] is None

    def references(self, rule: int) -> Iterator[Iterator[Element]]:
        """Return the elements of each of a rule's alternatives."""
        for start in self.starts[rule]:
            yield self._until_end(start)

    def _until_end(self, place: int) -> Iterator[Element]:
        while (element := self.elements[place]) is not None:
            yield element
            place += 1


def parse(text: str) -> Rules:
    """Return the rules of a grammar.

    Raises:
        OptionError: it does not parse, is too large, or lacks a rule; the message says where.
    """
    if "\0" in text:
        raise OptionError("grammar: it holds a NUL, at which llama.cpp would stop reading")
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise OptionError(f"grammar: it has more than {MOST_BYTES} bytes: ask for less at once")
    return _Parser(text).grammar()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._nested = text, 0, 0
        self._ids: dict[str, int] = {}
        self._names: list[str] = []  # of the rules; a generated one has that of its author's rule
        self._rules: dict[int, list[Sequence]] = {}
        self._size = 0

    def grammar(self) -> Rules:
        self._space(lines=True)
        while self._at < len(self._text):
            self._rule()
        if "root" not in self._ids:
            raise OptionError("grammar: it has no rule named root, which is where it starts")
        for number, name in enumerate(self._names):
            if number not in self._rules:
                raise OptionError(f"grammar: the rule {name} is used and not defined")
        rules = Rules(self._ids["root"], self._names)
        for number in range(len(self._names)):
            rules.starts.append([])
            for sequence in self._rules[number]:
                rules.starts[-1].append(len(rules.elements))
                rules.elements += [*sequence, None]
                rules.rule_of += [number] * (len(sequence) + 1)
        return rules

    def refuse(self, reason: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        rest = self._text[self._at : self._at + 20].partition("\n")[0]
        raise OptionError(f"grammar: line {line}, at {rest!r}: {reason}")

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _space(self, *, lines: bool) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if not found:
            self.refuse("a rule's name (letters, digits, -) should stand here")
        self._at = found.end()
        return found[0]

    def _named(self, name: str) -> int:
        if name not in self._ids:
            self._ids[name] = self._new(name)
        return self._ids[name]

    def _new(self, name: str) -> int:
        self._names.append(name)
        self._spend(1)
        return len(self._names) - 1

    def _spend(self, size: int) -> None:
        self._size += size
        if self._size > MOST_ELEMENTS:
            self.refuse(
                f"up to here it has more than {MOST_ELEMENTS} elements, repetitions written out: "
                "ask for fewer"
            )

    def _rule(self) -> None:
        name = self._name()
        number = self._named(name)
        self._space(lines=False)
        if not self._take("::="):
            self.refuse("::= should stand here")
        self._space(lines=True)
        self._rules[number] = self._alternatives(name)
        if self._at < len(self._text) and not any(map(self._take, ("\r\n", "\n", "\r"))):
            self.refuse("the rule's end, or a line's, should stand here")
        self._space(lines=True)

    def _alternatives(self, name: str) -> list[Sequence]:
        found = [self._sequence(name)]
        while self._take("|"):
            self._space(lines=True)
            found.append(self._sequence(name))
        return found

    def _sequence(self, name: str) -> Sequence:
        sequence: Sequence = []
        start, weight = 0, 1  # of what a repetition repeats, and how many rules it has
        while char := self._next():
            if char in "*+?{":
                self._at += 1
                least, most = self._counts(char)
                self._space(lines=self._nested > 0)
                if start == len(sequence):
                    self.refuse("there is nothing to repeat")
                weight *= most or max(least, 1)
                if weight > MOST_REPETITIONS:
                    self.refuse(f"more than {MOST_REPETITIONS} repetitions, those within included")
                self._repeat(sequence, start, least, most, name)
                continue
            before = len(self._names)
            items = self._item(char, name)
            if items is None:
                break
            start, weight = len(sequence), max(1, len(self._names) - before) if char == "(" else 1
            sequence += items
            self._spend(len(items))
            self._space(lines=self._nested > 0)
        return sequence

    def _item(self, char: str, name: str) -> Sequence | None:
        """Return what begins here; None at the end of a sequence."""
        if char == '"':
            self._at += 1
            return self._literal()
        if char == "[":
            self._at += 1
            return self._class()
        if char == ".":
            self._at += 1
            return [EVERY]
        if char == "(":
            return [self._group(name)]
        if char in "<!":
            self.refuse("tokens (such as <[1]>) cannot stand in it; write their text")
        if _NAME.match(char):
            return [self._named(self._name())]
        return None

    def _group(self, name: str) -> int:
        self._at += 1
        self._nested += 1
        if self._nested > MOST_NESTED:
            self.refuse(f"it nests deeper than {MOST_NESTED} parentheses")
        self._space(lines=True)
        number = self._new(name)
        self._rules[number] = self._alternatives(name)
        if not self._take(")"):
            self.refuse("a parenthesis should be closed here")
        self._nested -= 1
        return number

    def _literal(self) -> Sequence:
        found: Sequence = []
        while not self._take('"'):
            code = self._char()
            found.append(((code, code),))
        return found

    def _class(self) -> Sequence:
        """Return a class of characters; an empty one is nothing at all to llama.cpp."""
        inverted = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = high = self._char()
            after = self._text[self._at : self._at + 2]
            if after[:1] == "-" and after[1:] != "]":
                self._at += 1
                high = self._char()
            ranges.append((low, high))
        self._spend(len(ranges))
        if not ranges:
            return []
        chosen = joined((low, min(high, EVERY[0][1])) for low, high in ranges if low <= high)
        return [without(EVERY, chosen) if inverted else chosen]

    def _char(self) -> int:
        char = self._next()
        self._at += 1
        if not char:
            self.refuse("it ends too early")
        if char != "\\":
            return ord(char)
        kind = self._next()
        self._at += 1
        if kind in _SHORT:
            return ord(_SHORT[kind])
        if kind not in _HEX:
            self._at -= 2
            self.refuse("an unknown escape")
        digits = self._text[self._at : self._at + _HEX[kind]]
        if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[kind]}}}", digits):
            self.refuse(f"{_HEX[kind]} hexadecimal digits should stand here")
        self._at += len(digits)
        return int(digits, 16)

    def _counts(self, sign: str) -> tuple[int, int | None]:
        if sign != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        self._space(lines=self._nested > 0)
        found = _COUNTS.match(self._text, self._at)
        if not found or max(len(found[1]), len(found[4] or "")) > 9:
            self.refuse("a repetition should stand here, such as {2}, {2,} or {2,5}")
        self._at = found.end()
        least = int(found[1])
        most = (int(found[4]) if found[4] else None) if found[3] else least
        if most is not None and least > most:
            self.refuse("a repetition should be at least as often as at most")
        if least > MOST_REPETITIONS:
            self.refuse(f"more than {MOST_REPETITIONS} repetitions")
        return least, None if most is None or most > MOST_REPETITIONS else most

    def _repeat(
        self, sequence: Sequence, start: int, least: int, most: int | None, name: str
    ) -> None:
        """Rewrite the repetition of a sequence's last item as llama.cpp does.

        ``S{m,n}`` is m times S and one of n - m rules ``S'(x) ::= S S'(x-1) |``; without n it is
        one rule ``S' ::= S S' |``.
        """
        item = sequence[start:]
        self._spend(len(item) * max(least - 1, 0))
        if not least:
            del sequence[start:]
        sequence += item * max(least - 1, 0)
        last: int | None = None
        for _ in range(1 if most is None else most - least):
            number = self._new(name)
            follows = [number] if most is None else [last] if last is not None else []
            self._spend(len(item) + 1)
            self._rules[number] = [[*item, *follows], []]
            last = number
        if last is not None:
            sequence.append(last)
