"""Guessing tokens without a second model: what followed these words before may follow again.

An answer that quotes its prompt (a file with one change, the result of a tool) repeats long
stretches of it. Tokens guessed from there are computed together with the last one, and each that
is what the sampler draws anyway costs nothing: the answer is the same, only sooner. This is prompt
lookup (https://github.com/apoorvumang/prompt-lookup-decoding; llama.cpp's examples/lookup).
"""

from __future__ import annotations

from collections.abc import Sequence

LENGTHS = (6, 3)  # tokens that must be the same, the surer match first
SHORTEST = LENGTHS[-1]
FIRST = 2  # guesses at the beginning, while it is not known whether they are worth anything


class Lookup:
    """The guesses for one request: where each run of tokens stood last, and how far to trust it.

    A step with guesses takes longer than one without. So a guess that was right lets the next
    be twice as long, up to ``most``; one that was wrong from its first token makes a pause, four
    times as long each time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = min(FIRST, most)
        self._misses = 0
        self._resume = 0  # number of tokens from which on there are guesses again
        self._follower: dict[tuple[int, ...], int] = {}  # a run of tokens: where it went on
        self._indexed = 0
        self._source = 0  # the place that goes on like the text, as far as it did until now
        self._length = 0  # of the text, when that was so

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow; none where nothing is known.

        ``tokens`` are those of prompt and answer, and begin with those of the last call.
        """
        if len(tokens) < self._resume or most < 1:
            return []
        self._index(tokens)
        at = self._find(tokens)
        if at is None:
            return []
        self._source, self._length = at, len(tokens)
        return _words(tokens[at : at + min(self._size, most)])

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

    def learn(self, tokens: int, guessed: int, right: int) -> None:
        """Take into account that ``right`` of ``guessed`` were drawn; ``tokens`` are there now."""
        if right == guessed:
            self._size = min(2 * self._size, self._most)
        elif not right:
            self._size = min(FIRST, self._most)
            self._misses += 1
            self._resume = tokens + 4**self._misses
        if right:
            self._misses = 0

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
