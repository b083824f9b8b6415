"""Patterns as finite automata, and those as rules of GBNF.

A deterministic automaton leaves llama.cpp's sampler one way through each string: a grammar with
several keeps a stack for each, and an ambiguous pattern takes it minutes a token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lfm2gguf.llamacpp import characters
from lfm2gguf.llamacpp.characters import Ranges, joined
from lfm2gguf.llamacpp.patterns import (
    ANYTHING,
    Anchor,
    Characters,
    Node,
    Repeat,
    Sequence,
    parse,
    refuse,
)

MOST_STEPS = 200_000  # of the conversion: about a quarter of a second
MOST_STATES = 4_000

_LESS, _BAR = characters.of("<"), characters.of("|")


@dataclass
class Budget:
    """The steps left for all the patterns of a schema."""

    steps: int = MOST_STEPS


@dataclass(frozen=True)
class State:
    """What is known of the string so far."""

    places: frozenset[int]  # of the nondeterministic automaton
    length: int  # counted as far as the bounds need it
    after_less: bool = False  # "<" was the last character
    started: bool = True


Moves = dict[State, dict[State, list[int]]]  # by state: the next one, and the classes leading to it


def pattern_rules(
    pattern: str, name: str, least: int = 0, most: int | None = None, budget: Budget | None = None
) -> dict[str, str]:
    """Return GBNF rules, ``name`` the first, of JSON strings in which a pattern is found.

    ``least`` and ``most`` bound the length in characters; ``budget`` is what the conversion may
    cost, and is charged for it.

    Raises:
        OptionError: the pattern is not supported, too large, or no string fits it.
    """
    search = Sequence((ANYTHING, parse(pattern), ANYTHING))
    return Automaton(pattern, search, least, most, budget or Budget()).rules(name)


class Automaton:
    """A pattern's automaton; making it takes no more steps than the budget has."""

    def __init__(
        self, pattern: str, tree: Node, least: int, most: int | None, budget: Budget
    ) -> None:
        self._pattern, self._budget = pattern, budget
        self._least, self._most = least, most
        self._jumps: list[list[tuple[int, Anchor | None]]] = []
        self._moves: list[list[tuple[Ranges, int]]] = []
        self._final = self._build(tree, self._place())
        sets = {ranges for moves in self._moves for ranges, _ in moves}
        self._alphabet, self._classes = characters.alphabet({*sets, _LESS, _BAR})
        self._less = self._classes[_LESS][0]
        self._anything = self._closure({self._final})
        self._start = State(self._closure({0}, start=True), 0, started=False)
        self._table = self._explored()

    def rules(self, name: str) -> dict[str, str]:
        """Return the rules of the JSON strings that the automaton accepts."""
        live = self._live()
        if self._start not in live:
            refuse(self._pattern, "no string fits it")
        names = {
            state: f"{name}-{i}" for i, state in enumerate(s for s in self._table if s in live)
        }
        sets: dict[str, str] = {}
        rules = {name: rf'"\"" {names[self._start]}'}
        for state, state_name in names.items():
            parts = [r'"\"" space'] if self._accepts(state) else []
            for after, classes in self._table[state].items():
                if after in live:
                    ranges = joined(part for i in classes for part in self._alphabet[i])
                    spelled = characters.spelled(ranges, _BAR if state.after_less else ())
                    set_name = sets.setdefault(spelled, f"{name}-c{len(sets)}")
                    parts.append(f"{set_name} {names[after]}")
            rules[state_name] = " | ".join(parts)
        return rules | {set_name: spelled for spelled, set_name in sets.items()}

    def _spend(self, steps: int = 1) -> None:
        self._budget.steps -= steps
        if self._budget.steps < 0:
            refuse(self._pattern, "there are too many ways to match it and those before it")

    def _place(self) -> int:
        self._spend()
        self._jumps.append([])
        self._moves.append([])
        return len(self._jumps) - 1

    def _build(self, node: Node, entry: int) -> int:
        """Add a node's places and return its exit (Thompson's construction)."""
        self._spend()
        if isinstance(node, Sequence):
            for part in node.parts:
                entry = self._build(part, entry)
            return entry
        if isinstance(node, Repeat):
            return self._build_repeat(node, entry)
        place = self._place()
        if isinstance(node, Characters):
            self._moves[entry].append((node.ranges, place))
        elif isinstance(node, Anchor):
            self._jumps[entry].append((place, node))
        else:
            for part in node.parts:
                self._jumps[self._build(part, entry)].append((place, None))
        return place

    def _build_repeat(self, node: Repeat, entry: int) -> int:
        for _ in range(node.least):
            entry = self._build(node.part, entry)
        place = self._place()
        if node.most is None:
            self._jumps[entry].append((place, None))
            self._jumps[self._build(node.part, place)].append((place, None))
            return place
        for _ in range(node.most - node.least):
            self._jumps[entry].append((place, None))
            entry = self._build(node.part, entry)
        self._jumps[entry].append((place, None))
        return place

    def _closure(
        self, places: Iterable[int], *, start: bool = False, end: bool = False
    ) -> frozenset[int]:
        """Return the places and those reached from them without a character."""
        todo = list(places)
        reached = set(todo)
        while todo:
            for place, anchor in self._jumps[todo.pop()]:
                holds = anchor is None or (end if anchor.end else start)
                if holds and place not in reached:
                    reached.add(place)
                    todo.append(place)
        self._spend(len(reached))
        return frozenset(reached)

    def _explored(self) -> Moves:
        table: Moves = {}
        todo = [self._start]
        while todo:
            state = todo.pop()
            if state not in table:
                table[state] = self._steps_from(state)
                todo += table[state]
            if len(table) > MOST_STATES:
                refuse(self._pattern, f"its automaton has more than {MOST_STATES} states")
        return table

    def _steps_from(self, state: State) -> dict[State, list[int]]:
        if self._most is not None and state.length >= self._most:
            return {}
        reached: dict[int, set[int]] = defaultdict(set)
        for place in state.places:
            for ranges, after in self._moves[place]:
                self._spend(len(self._classes[ranges]))
                for i in self._classes[ranges]:
                    reached[i].add(after)
        length = min(state.length + 1, self._least if self._most is None else self._most)
        steps: dict[State, list[int]] = defaultdict(list)
        closed = {places: self._closure(places) for places in map(frozenset, reached.values())}
        for i, places in reached.items():
            found = closed[frozenset(places)]
            found = self._anything if self._final in found else found  # whatever follows
            steps[State(found, length, after_less=i == self._less)].append(i)
        return steps

    def _accepts(self, state: State) -> bool:
        places = self._closure(state.places, start=not state.started, end=True)
        return self._final in places and state.length >= self._least

    def _live(self) -> set[State]:
        """Return the states from which the string can come to a good end."""
        before: dict[State, list[State]] = defaultdict(list)
        for state, steps in self._table.items():
            for after in steps:
                before[after].append(state)
        live: set[State] = set()
        todo = [state for state in self._table if self._accepts(state)]
        while todo:
            state = todo.pop()
            if state not in live:
                live.add(state)
                todo += before[state]
        return live
