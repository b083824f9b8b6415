"""How the rules of a grammar call each other: which begin with themselves, what follows each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.gbnf import Rules

MOST_CALLS = 1_000_000  # of llama.cpp's search for left recursion
DEEPEST = 1_000  # of the same search, on C's stack


def check_left_recursion(rules: Rules) -> None:
    """Refuse what llama.cpp does not end with.

    Its own search (``llama_grammar_detect_left_recursion``) overlooks recursion behind rules that
    are empty by way of others, and looks at a rule again wherever one begins with it.

    Raises:
        OptionError: a rule begins with itself, or too many begin with one another.
    """
    nullable = _nullable(rules)
    firsts: list[list[int]] = []
    for rule in range(len(rules.starts)):
        firsts.append([])
        for sequence in rules.references(rule):
            for element in sequence:
                if not isinstance(element, int):
                    break
                firsts[-1].append(element)
                if element not in nullable:
                    break
    calls: dict[int, tuple[int, int]] = {}  # of a rule: how many, and how deep
    for start in range(len(firsts)):
        path: dict[int, Iterator[int]] = {} if start in calls else {start: iter(firsts[start])}
        while path:
            rule = next(reversed(path))
            for first in path[rule]:
                if first in path:
                    raise OptionError(
                        f"grammar: the rule {rules.names[first]} begins with itself (left "
                        "recursion), which llama.cpp does not follow: write the repetition with * "
                        "or + behind what it begins with"
                    )
                if first not in calls:
                    path[first] = iter(firsts[first])
                    break
            else:
                del path[rule]
                below = [calls[first] for first in firsts[rule]]
                count = 1 + sum(n for n, _ in below)
                deep = 1 + max((d for _, d in below), default=0)
                calls[rule] = count, deep
                if count > MOST_CALLS or deep > DEEPEST:
                    raise OptionError(
                        f"grammar: too many rules begin with one another, from {rules.names[rule]} "
                        "on: put shared beginnings into one rule"
                    )


def _nullable(rules: Rules) -> set[int]:
    """Return the rules that may be empty."""
    waiting: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    found: set[int] = set()
    todo: list[int] = []
    for rule in range(len(rules.starts)):
        for sequence in rules.references(rule):
            parts = list(sequence)
            numbers = [part for part in parts if isinstance(part, int)]
            if not parts:
                todo.append(rule)
            elif len(numbers) == len(parts):
                waiting[numbers[0]].append((rule, numbers))
    while todo:
        rule = todo.pop()
        if rule in found:
            continue
        found.add(rule)
        for other, numbers in waiting.pop(rule, ()):
            missing = next((number for number in numbers if number not in found), None)
            if missing is None:
                todo.append(other)
            else:
                waiting[missing].append((other, numbers))
    return found


def returns(rules: Rules) -> list[list[int | None]]:
    """Return the places that may lie below a rule's frames; None: nothing does.

    A reference at the end of an alternative leaves no frame: what lies below is its own rule's.
    """
    found = [0] * len(rules.starts)  # as bits; the lowest is the empty stack
    tails: dict[int, list[int]] = defaultdict(list)
    found[rules.root] = 1
    for place, element in enumerate(rules.elements):
        if isinstance(element, int):
            if rules.ends(place + 1):
                tails[rules.rule_of[place]].append(element)
            else:
                found[element] |= 2 << (place + 1)
    todo = list(range(len(found)))
    while todo:
        following = set()
        for rule in todo:
            for tail in tails[rule]:
                if found[rule] & ~found[tail]:
                    found[tail] |= found[rule]
                    following.add(tail)
        todo = list(following)
    return [
        [None if i == 0 else i - 1 for i in range(bits.bit_length()) if bits >> i & 1]
        for bits in found
    ]
