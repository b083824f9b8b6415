"""What a grammar costs llama.cpp's sampler, bounded before it gets there.

The sampler (``src/llama-grammar.cpp`` at 0c1e57098) holds a grammar's state as a list of stacks of
places, one for each way to read the text so far. To filter the vocabulary it follows all tokens
along each of them (``llama_grammar_reject_candidates``), and does not notice when two ways come to
the same stack: a token of n characters costs as many steps as it has ways, up to 2**n of them where
the grammar is ambiguous. Between tokens equal stacks are merged.

So this explores what lists of stacks there are, over classes of characters that the grammar does
not tell apart, and from each of them how the ways multiply within a token. Of what lies at the
bottom of all stacks of a list the last frame is kept, and whatever may have called its rule is
tried when that is popped. Where lists differ without end the steps run out: nothing is proven.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import gbnf
from lfm2gguf.llamacpp.characters import Ranges, alphabet
from lfm2gguf.llamacpp.recursion import check_left_recursion, returns

MOST_STEPS = 300_000  # of the analysis: 0.5 s was the worst seen
MOST_WAYS = 2_000  # to read one token
# For one filtering of the vocabulary, if every token had the most ways that any text has:
MOST_COMPARISONS = 50_000_000  # of a token with a stack: 20 ns each, 30 on a busy machine
MOST_EXPANSIONS = 50_000_000  # of a stack's last frame, 50 ns each
KEPT = 1  # frames that all stacks of a list share, and that are remembered

# LFM2's vocabulary. Digits are in tokens of their own, of three at most. Else: tokens of more than
# n characters, and different beginnings of n + 1 characters. Longer than 16 are two words and a
# hundred markers; what they cost is bounded, too: m + n characters have no more ways than m have,
# times those that n have.
LONGER = (
    63778, 60735, 54746, 46362, 36844, 27812, 20335, 14131, 9473, 6219, 3874, 2291, 1375, 878, 603,
    400,
)  # fmt: skip
BEGINNINGS = (
    2886, 6600, 11157, 15259, 17705, 16124, 12949, 9620, 6773, 4580, 2858, 1603, 927, 856, 602, 399,
)  # fmt: skip
# The most tokens of more than n characters that have their first n in common.
ALIKE = (
    63778, 34017, 2082, 978, 489, 487, 487, 487, 487, 487, 487, 487, 110, 11, 2, 2,
)  # fmt: skip
MOST_DIGITS = 3
DIGITS: Ranges = ((0x30, 0x39),)

Stack = tuple[int, ...]  # places, the next one last; empty: the text may end here
TRUST = "or have the server's operator trust its clients' grammars (serve --any-grammar)"


def check_grammar(text: str) -> None:
    """Refuse a grammar of which no bound is known for what a token costs the sampler.

    Raises:
        OptionError: it does not parse, recurses on the left, is ambiguous, or too complex.
    """
    if reason := _reason_against(text):
        raise OptionError(reason)


@functools.lru_cache(maxsize=64)  # of 100,000 bytes at most
def _reason_against(text: str) -> str | None:
    try:
        Exploration(gbnf.parse(text)).check()
    except OptionError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Ways:
    """A list of stacks, and how many ways there are to each.

    What lies below is the same in all of them: something that called the rule ``above``, or
    nothing if that is None.
    """

    above: int | None
    stacks: frozenset[tuple[Stack, int]]

    @functools.cached_property
    def count(self) -> int:
        """How many ways there are in all."""
        return sum(count for _, count in self.stacks)


@dataclass
class Bound:
    """The most that one character of a token costs, by its place in the token."""

    ways: list[int] = field(default_factory=lambda: [0] * (len(LONGER) + 1))
    expansions: list[int] = field(default_factory=lambda: [0] * (len(LONGER) + 1))

    @property
    def comparisons(self) -> int:
        """Of tokens with stacks, for one filtering of the vocabulary."""
        return sum(n * ways for n, ways in zip(LONGER, self.ways, strict=False))

    @property
    def expanded(self) -> int:
        """Frames that one filtering of the vocabulary expands.

        What comes behind a stack is looked for at each beginning of a token that gets to its list,
        whether it goes on along that stack or not.
        """
        first, *later = self.expansions
        return first + sum(n * most for n, most in zip(BEGINNINGS, later, strict=False))


class Exploration:
    """The lists of stacks that a grammar leads to; finding them takes ``steps`` at most."""

    def __init__(self, rules: gbnf.Rules, steps: int = MOST_STEPS) -> None:
        self._rules = rules
        self._left = steps
        self._returns = returns(rules)
        self._expanded: dict[int, tuple[list[Stack], int]] = {}
        self._came: dict[Ways, tuple[Ways, int]] = {}  # from where, by which class of characters
        self._known: dict[Stack, tuple[list[Stack], int]] = {}
        self._deepened: set[Ways] = set()
        self._most: dict[int, dict[tuple[int | None, frozenset[Stack]], dict[Stack, int]]] = {}
        sets = {element for element in rules.elements if isinstance(element, tuple)}
        self._alphabet, classes = alphabet({*sets, DIGITS})
        self._every = (1 << len(self._alphabet)) - 1
        self._digits = sum(1 << i for i in classes[DIGITS])
        masks = {part: sum(1 << i for i in classes[part]) for part in sets}
        self._masks = [masks[e] if isinstance(e, tuple) else 0 for e in rules.elements]
        self.bound = Bound()

    def check(self) -> None:
        """Explore, and refuse what has no bound.

        Raises:
            OptionError: a text may be read in too many ways, or nothing could be proven.
        """
        check_left_recursion(self._rules)
        texts = self._texts_to_choose_from()
        if 0 < texts <= MOST_WAYS and texts * sum(ALIKE) <= MOST_COMPARISONS:
            self.bound.ways = [texts] * len(self.bound.ways)  # each text is read in one way
            return
        for level, mask, most in self._between_tokens():
            for depth in range(1, most):
                level = {
                    after
                    for ways in self._resolved(self._largest(level, mask))
                    for after, _ in self._follow(ways, depth, mask)
                }
        for figures in (self.bound.ways, self.bound.expansions):  # what was may come again
            figures[1:] = itertools.accumulate(figures[1:], max)
        worst = max(self._came, key=lambda ways: ways.count, default=None)
        if self.bound.comparisons > MOST_COMPARISONS or self.bound.expanded > MOST_EXPANSIONS:
            self._refuse(worst)

    def _texts_to_choose_from(self) -> int:
        """Return how many texts the grammar is a choice of; 0 if it is something else.

        A stack then goes along one text: behind n characters it meets the tokens alone that begin
        with them, and expands one frame.
        """
        sequences = [list(sequence) for sequence in self._rules.references(self._rules.root)]
        while len(sequences) == len(sequences[0]) == 1 and isinstance(sequences[0][0], int):
            sequences = [list(sequence) for sequence in self._rules.references(sequences[0][0])]
        characters = itertools.chain.from_iterable(sequences)
        plain = all(isinstance(e, tuple) and len(e) == 1 and e[0][0] == e[0][1] for e in characters)
        return len(sequences) if plain else 0

    def _between_tokens(self) -> list[tuple[set[Ways], int, int]]:
        """Explore what may stand before a token; return what is behind the first character of one.

        That is for each kind of tokens: the lists, the classes of its characters, its length.
        """
        start = self._normal(None, Counter(self._starts()))
        self._note(start, 0)
        seen = {start}
        inside: dict[int, set[Ways]] = {self._digits: set(), ~self._digits: set()}
        todo = [start]
        while todo:
            for ways in self._resolved([todo.pop()]):
                self._note(ways, 0)
                if ways != start:  # so it stands behind a character
                    self._note_expansions(ways, 1)
                for after, classes in self._follow(ways, 0, -1):
                    merged = Ways(after.above, frozenset((stack, 1) for stack, _ in after.stacks))
                    for kind, level in inside.items():
                        if merged != after and classes & kind:
                            level.add(after)
                    if merged == start:
                        self._note_expansions(start, 1)
                    if merged not in seen:
                        seen.add(merged)
                        self._came.setdefault(merged, self._came[after])
                        todo.append(merged)
        most = {(w.above, frozenset(s for s, _ in w.stacks)): dict(w.stacks) for w in seen}
        self._most = {kind: dict(most) for kind in inside}
        lengths = (MOST_DIGITS, len(LONGER))
        return [(level, kind, n) for (kind, level), n in zip(inside.items(), lengths, strict=True)]

    def _largest(self, level: set[Ways], kind: int) -> list[Ways]:
        """Return lists with more ways than before; of those with equal stacks, the most together.

        More ways to a stack never lead to fewer.
        """
        grown: dict[tuple[int | None, frozenset[Stack]], Ways] = {}
        for ways in level:
            key = (ways.above, frozenset(stack for stack, _ in ways.stacks))
            most = self._most[kind].get(key, {})
            if all(count <= most.get(stack, 0) for stack, count in ways.stacks):
                continue
            counts = {stack: max(count, most.get(stack, 0)) for stack, count in ways.stacks}
            self._spend(len(counts))
            self._most[kind][key] = counts
            grown[key] = Ways(ways.above, frozenset(counts.items()))
            self._came.setdefault(grown[key], self._came[ways])
        return list(grown.values())

    def _starts(self) -> Iterator[Stack]:
        found: set[Stack] = set()
        for place in self._rules.starts[self._rules.root]:
            first = () if self._rules.ends(place) else (place,)
            found.update(self._advanced(first)[0])
        return iter(found)

    def _resolved(self, some: Iterable[Ways]) -> Iterator[Ways]:
        """Return lists with as much of what lies below as their next character reaches."""
        todo = list(some)
        while todo:
            ways = todo.pop()
            if ways.above is None or not any(() in self._after(s)[0] for s, _ in ways.stacks):
                yield ways
                continue
            for place in self._returns[ways.above]:
                below = () if place is None else (place,)
                above = None if place is None else self._rules.rule_of[place]
                counts = {below + stack: count for stack, count in ways.stacks}
                deeper = Ways(above, frozenset(counts.items()))
                self._spend(sum(map(len, counts)))
                if deeper not in self._deepened or ways.count > len(ways.stacks):
                    self._deepened.add(deeper)
                    if ways in self._came:
                        self._came.setdefault(deeper, self._came[ways])
                    todo.append(deeper)

    def _follow(self, ways: Ways, depth: int, within: int) -> list[tuple[Ways, int]]:
        """Return the lists after a token's character number ``depth``, and its classes."""
        found = []
        stacks = [(stack, count) for stack, count in ways.stacks if stack]
        self._note_expansions(ways, depth)
        parts: list[tuple[int, tuple[int, ...]]] = [(within & self._every, ())]
        for i, (stack, _) in enumerate(stacks):
            mask = self._masks[stack[-1]]
            split = [(m & mask, (*members, i)) for m, members in parts if m & mask]
            parts = split + [(m & ~mask, members) for m, members in parts if m & ~mask]
            self._spend(len(parts))
        for mask, members in parts:
            if not members:
                continue
            counts: Counter[Stack] = Counter()
            for i in members:
                stack, count = stacks[i]
                after, _ = self._after(stack)
                for reached in after:
                    counts[reached] += count
                self._spend(1 + len(after))
            reached_ways = self._normal(ways.above, counts)
            self._came.setdefault(reached_ways, (ways, (mask & -mask).bit_length() - 1))
            self._note(reached_ways, depth + 1)
            found.append((reached_ways, mask))
        return found

    def _note(self, ways: Ways, depth: int) -> None:
        self.bound.ways[depth] = max(self.bound.ways[depth], ways.count)
        if ways.count > MOST_WAYS:
            self._refuse(ways)

    def _note_expansions(self, ways: Ways, depth: int) -> None:
        expansions = sum(count * self._after(stack)[1] for stack, count in ways.stacks)
        self.bound.expansions[depth] = max(self.bound.expansions[depth], expansions)

    def _after(self, stack: Stack) -> tuple[list[Stack], int]:
        """Return the stacks behind a stack's next character, and what it takes to find them."""
        if not stack:
            return [], 0
        if stack not in self._known:
            place = stack[-1] + 1
            rest = stack[:-1] if self._rules.ends(place) else (*stack[:-1], place)
            self._known[stack] = self._advanced(rest)
        return self._known[stack]

    def _advanced(self, stack: Stack) -> tuple[list[Stack], int]:
        """Return the stacks that wait for a character, as ``llama_grammar_advance_stack`` does."""
        found: set[Stack] = set()
        pops = 1
        while stack:
            self._spend(1)
            below = stack[:-1]
            reached, more = self._expansion(stack[-1])
            pops += more
            found.update(below + above for above in reached if above)
            if () not in reached:
                return list(found), pops
            stack = below
        found.add(())
        return list(found), pops

    def _expansion(self, place: int) -> tuple[list[Stack], int]:
        """Return what a place on top of a stack becomes: stacks on what lies below it."""
        if place in self._expanded:
            return self._expanded[place]
        rules = self._rules
        seen: set[Stack] = set()
        found: list[Stack] = []
        todo: list[Stack] = [(place,)]
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            self._spend(1)
            rule = rules.elements[stack[-1]] if stack else None
            if not isinstance(rule, int):
                found.append(stack)
                continue
            rest = stack[:-1] if rules.ends(stack[-1] + 1) else (*stack[:-1], stack[-1] + 1)
            todo += [rest if rules.ends(at) else (*rest, at) for at in rules.starts[rule]]
        self._expanded[place] = found, len(seen)
        return self._expanded[place]

    def _normal(self, above: int | None, counts: Counter[Stack]) -> Ways:
        """Return a list without what all of its stacks share, but for the last frames of that."""
        stacks = list(counts)
        first, shortest = stacks[0], min(map(len, stacks))
        shared = 0
        while shared < shortest and all(stack[shared] == first[shared] for stack in stacks):
            shared += 1
        if cut := max(0, min(shared, shortest) - KEPT):
            above = self._rules.rule_of[first[cut]]
        return Ways(above, frozenset((stack[cut:], count) for stack, count in counts.items()))

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise OptionError(
                "grammar: it is too complex to tell what it costs: write it with fewer rules, and "
                f"with alternatives that do not begin alike, {TRUST}"
            )

    def _refuse(self, ways: Ways | None) -> NoReturn:
        text = ""
        rules: set[str] = set()
        if ways is not None:
            text = self._example(ways)
            places = {stack[-1] for stack, _ in ways.stacks if stack}
            rules = {self._rules.names[self._rules.rule_of[place]] for place in places}
        where = f"the rule {' and '.join(sorted(rules)[:3])}" if rules else "its rules"
        raise OptionError(
            f"grammar: {where}: a text such as {text!r} can be read, or go on, in too many ways, "
            "and llama.cpp follows each: write classes ([a-z]) for alternatives of one "
            "character, alternatives that do not begin alike, and repetitions in one place only "
            f"([a-z]* for ([a-z]* | [a-z]*)*); give texts to choose from as guided_choice; {TRUST}"
        )

    def _example(self, ways: Ways) -> str:
        """Return a text that leads to a list of stacks."""
        text = ""
        passed: set[Ways] = set()
        while ways in self._came and ways not in passed and len(text) < 40:
            passed.add(ways)
            ways, number = self._came[ways]
            text = chr(_shown(self._alphabet[number])) + text
        return text


def _shown(ranges: Ranges) -> int:
    """Return a character of a set, one that prints if there is one."""
    printing = (max(low, 0x21) for low, high in ranges if low <= 0x7E and high >= 0x21)
    return next(printing, min(ranges[0][0], 0x10FFFF))
