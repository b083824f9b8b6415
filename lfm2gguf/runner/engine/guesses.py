"""Tokens that may follow, guessed so that the model computes several in one step.

They are computed together with the last token, and each that is what the sampler draws anyway has
cost no step of its own: the answer is the same, only sooner. Guesses come from the text itself
(prompt lookup, https://github.com/apoorvumang/prompt-lookup-decoding): an answer that quotes its
prompt, such as a file with one change or the result of a tool, repeats long stretches of it. Or
they come from a small model of the same vocabulary (https://arxiv.org/abs/2211.17192).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

LENGTHS = (6, 3)  # tokens that must be the same, the surer match first
SHORTEST = LENGTHS[-1]
COST = 0.5  # of a step: computing one more token in it, where a processor computes
MARGIN = 2.0  # steps that a source may cost before it has to pause
PAUSE = 64  # tokens
FIRST = 2  # guesses at the beginning, while it is not known whether they are worth anything


class Source(Protocol):
    """Where guesses come from; ``in_vain``: the last call computed something, and gave none."""

    in_vain: bool

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow ``tokens``."""


class Guesses:
    """The guesses for one request: the first source that knows something gives them."""

    def __init__(self, most: int, *sources: Source) -> None:
        self._sources = [(source, Trust(most)) for source in sources]
        self._trust: Trust | None = None  # in the source of the last guess

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow; none where nothing is known.

        ``tokens`` are those of prompt and answer, and begin with those of the last call.
        """
        for source, trust in self._sources:
            if (size := min(most, trust.size(len(tokens)))) < 1:
                continue
            if guesses := source.guess(tokens, size):
                self._trust = trust
                return guesses
            if source.in_vain:
                trust.doubt(len(tokens))
        return []

    def learn(self, tokens: int, guessed: int, right: int) -> None:
        """Take into account that ``right`` of ``guessed`` were drawn; ``tokens`` are there now."""
        if self._trust:
            self._trust.learn(tokens, guessed, right)


class Trust:
    """How many guesses of a source are worth their time.

    A step with guesses takes longer than one without. So a guess that was right lets the next
    be twice as long, up to ``most``; one that was wrong from its first token makes a pause, four
    times as long each time. So does asking in vain, twice as long each time and none at first.

    And what guesses gain is booked, in steps without guesses. A source that has cost more than it
    gave makes a long pause, twice as long each time until it pays. The cost of a guess is a
    constant and not measured, so that the same request is computed in the same steps each time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = min(FIRST, most)
        self._misses = self._doubts = 0  # since a guess was right
        self._gained, self._losses = 0.0, 0
        self._resume = 0  # number of tokens from which on there are guesses again

    def size(self, tokens: int) -> int:
        """Return how many guesses to take after so many tokens."""
        return self._size if tokens >= self._resume else 0

    def learn(self, tokens: int, guessed: int, right: int) -> None:
        """Take into account that ``right`` of ``guessed`` were drawn; ``tokens`` are there now."""
        self._book(tokens, right - COST * guessed)
        if right == guessed:
            self._size = min(2 * self._size, self._most)
        elif right:
            self._size = min(right + 1, self._most)
        else:
            self._size = min(FIRST, self._most)
            self._misses += 1
            self._resume = max(self._resume, tokens + 4**self._misses)
        if right:
            self._misses = self._doubts = 0

    def _book(self, tokens: int, gain: float) -> None:
        self._gained += gain
        if self._gained > MARGIN:
            self._gained, self._losses = MARGIN, 0
        elif self._gained < -MARGIN:
            self._resume = tokens + PAUSE * 2**self._losses
            self._gained, self._losses = 0.0, self._losses + 1

    def doubt(self, tokens: int) -> None:
        """Take into account that the source was asked after so many tokens, and knew nothing."""
        self._resume = tokens + 2**self._doubts
        self._doubts += 1


class Lookup:
    """Where each run of tokens stood last, and so what may follow it."""

    in_vain = False  # looking costs next to nothing

    def __init__(self) -> None:
        self._follower: dict[tuple[int, ...], int] = {}  # a run of tokens: where it went on
        self._indexed = 0
        self._source = 0  # the place that goes on like the text, as far as it did until now
        self._length = 0  # of the text, when that was so

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return what followed the last words before; ``tokens`` only grow from call to call."""
        self._index(tokens)
        at = self._find(tokens)
        if at is None:
            return []
        self._source, self._length = at, len(tokens)
        return _words(tokens[at : at + most])

    def _find(self, tokens: Sequence[int]) -> int | None:
        """Return where the text went on after its last words, if it had them before.

        The place that was followed so far goes before the latest one: a list's lines begin alike,
        and one changed word does not end a quotation.
        """
        at = self._source + len(tokens) - self._length
        if self._source and tokens[at - SHORTEST : at] == tokens[-SHORTEST:]:
            return at
        places = (self._follower.get(tuple(tokens[-length:])) for length in LENGTHS)
        return next((place for place in places if place is not None), None)

    def _index(self, tokens: Sequence[int]) -> None:
        for at in range(max(self._indexed, SHORTEST), len(tokens)):
            for length in LENGTHS:
                if length <= at:
                    self._follower[tuple(tokens[at - length : at])] = at
        self._indexed = len(tokens)


def _words(tokens: Sequence[int]) -> list[int]:
    """Return the tokens up to the first place of an image or sound."""
    stop = next((i for i, token in enumerate(tokens) if token < 0), len(tokens))
    return list(tokens[:stop])
