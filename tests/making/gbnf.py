"""Random texts of a GBNF grammar, derived without llama.cpp (grammars/README.md there)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Symbol = str | tuple[bool, list[tuple[int, int]]]  # a rule, or a set (negated?, ranges)
Sequence = list[Symbol]

_TOKEN = re.compile(
    r'\s*("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[a-zA-Z0-9-]+|\{[0-9, ]+\}|[()|*+?])', re.DOTALL
)
_CHAR = re.compile(r"\\x(..)|\\u(....)|\\U(.{8})|\\(.)|(.)", re.DOTALL)
_SHORT = {"n": "\n", "r": "\r", "t": "\t"}
PLENTY = 10**9


class Grammar:
    """A grammar to draw texts from."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, list[Sequence]] = {}
        for line in text.splitlines():
            name, _, body = line.partition(" ::= ")
            tokens = [found[1] for found in _TOKEN.finditer(body)]
            self._rules[name] = self._choice(tokens)
            assert not tokens, (name, tokens)
        self._costs = self._measured()

    def draw(self, random: random.Random, size: int = 60) -> str:
        """Return a random text; after ``size`` choices the shortest ways are taken."""
        todo: list[Symbol] = ["root"]
        text = []
        while todo:
            symbol = todo.pop()
            if isinstance(symbol, tuple):
                text.append(_character(symbol, random))
                continue
            size -= 1
            choices = self._rules[symbol]
            if size < 0:
                least = min(map(self._cost, choices))
                choices = [part for part in choices if self._cost(part) == least]
            todo += reversed(random.choice(choices))
        return "".join(text)

    def _cost(self, sequence: Sequence) -> int:
        return 1 + sum(self._costs[s] if isinstance(s, str) else 1 for s in sequence)

    def _measured(self) -> dict[str, int]:
        self._costs = dict.fromkeys(self._rules, PLENTY)
        changed = True
        while changed:
            changed = False
            for name, choices in reversed(self._rules.items()):
                cost = min(PLENTY, *(self._cost(part) for part in [*choices, choices[0]]))
                changed |= cost != self._costs[name]
                self._costs[name] = cost
        return self._costs

    def _new(self, make: Callable[[str], list[Sequence]]) -> str:
        name = f"_{len(self._rules)}"
        self._rules[name] = []
        self._rules[name] = make(name)
        return name

    def _choice(self, tokens: list[str]) -> list[Sequence]:
        choices: list[Sequence] = [[]]
        while tokens and tokens[0] != ")":
            token = tokens.pop(0)
            if token == "|":
                choices.append([])
            else:
                choices[-1] += self._repeated(self._item(token, tokens), tokens)
        return choices

    def _item(self, token: str, tokens: list[str]) -> Sequence:
        if token == "(":
            inner = self._choice(tokens)
            assert tokens.pop(0) == ")"
            return [self._new(lambda _: inner)]
        if token[0] == '"':
            return [(False, [(code, code)]) for code in _codes(token[1:-1])]
        return [_set(token[1:-1])] if token[0] == "[" else [token]

    def _repeated(self, item: Sequence, tokens: list[str]) -> Sequence:
        if not tokens or tokens[0][0] not in "*+?{":
            return item
        sign = tokens.pop(0)
        counts = {"*": "0,", "+": "1,", "?": "0,1"}.get(sign, sign[1:-1])
        least, comma, most = counts.partition(",")
        kept = item * int(least)
        if comma and not most.strip():
            return [*kept, self._new(lambda name: [[], [*item, name]])]
        for _ in range(int(most or least) - int(least)):
            kept.append(self._new(lambda _: [[], item]))
        return kept


def _codes(text: str) -> list[int]:
    return [
        int(found[1] or found[2] or found[3], 16)
        if found[1] or found[2] or found[3]
        else ord(_SHORT.get(found[4], found[4]) if found[4] else found[5])
        for found in _CHAR.finditer(text)
    ]


def _set(text: str) -> Symbol:
    negated = text.startswith("^")
    units = [found[0] for found in _CHAR.finditer(text[negated:])]
    ranges = []
    while units:
        low = high = units.pop(0)
        if len(units) > 1 and units[0] == "-":
            high, units = units[1], units[2:]
        ranges.append((_codes(low)[0], _codes(high)[0]))
    return negated, ranges


def _character(symbol: tuple[bool, list[tuple[int, int]]], random: random.Random) -> str:
    negated, ranges = symbol
    if not negated:
        return chr(random.randint(*random.choice(ranges)))
    while True:
        code = random.choice([random.randrange(0x80), random.randrange(0xD800)])
        if not any(low <= code <= high for low, high in ranges):
            return chr(code)
