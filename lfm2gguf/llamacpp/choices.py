"""Texts one of which stands at a place, and parts that are repeated, as GBNF."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

MOST_WRITTEN_OUT = 50  # repetitions; llama.cpp's parser recurses at each parenthesis


def literal(text: str) -> str:
    """Return a text as a literal of GBNF."""
    for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, written)
    return f'"{text}"'


def choice_rules(texts: Iterable[str], name: str) -> dict[str, str]:
    """Return rules, ``name`` the first, that match one of the texts.

    What texts begin with in common is read once, so that the grammar has few ways to follow at a
    time: of 20,000 alternatives side by side llama.cpp tries every one at every token.
    """
    numbers = itertools.count(1)
    rules: dict[str, str] = {}
    open_rules = [(name, sorted(set(texts)))]
    while open_rules:
        rule, members = open_rules.pop()
        ways = []
        for _, group in itertools.groupby(members, key=lambda text: text[:1]):
            alike = list(group)
            start = _common_start(alike[0], alike[-1])  # in order, so it is that of all
            if len(alike) == 1:
                ways.append(literal(start))
                continue
            rest = f"{name}-{next(numbers)}"
            open_rules.append((rest, [text[len(start) :] for text in alike]))
            ways.append(f"{literal(start)} {rest}")
        rules[rule] = " | ".join(ways)
    return rules


def _common_start(one: str, other: str) -> str:
    pairs = enumerate(zip(one, other, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    return one[:length]


def texts_of(value: Any, *, pythonic: bool = False) -> list[str]:
    """Return how a value is written: as JSON, and where that is asked for as Python as well.

    Raises:
        ValueError: JSON cannot say it.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not pythonic:
        return [text]
    if isinstance(value, str):
        inner = text[1:-1].replace('\\"', '"').replace("'", "\\'")
        return [text, f"'{inner}'"]
    return [text, repr(value)] if value is None or isinstance(value, bool) else [text]


def repeated(item: str, least: int, most: int | None, separator: str | None) -> tuple[str, bool]:
    """Return a part that occurs ``least`` to ``most`` times (None: any number), as ``{m,n}``.

    With a separator it is there once at least, and the second value says whether it need not be:
    llama.cpp takes no repetition of what it repeats often.
    """
    if separator is None:
        return f"{item}{{{least},{'' if most is None else most}}}", False
    more = "" if most is None else most - 1
    return f"{item} ({separator} {item}){{{max(least - 1, 0)},{more}}}", least == 0
