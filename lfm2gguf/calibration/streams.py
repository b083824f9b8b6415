"""Two models on their way through the same texts: the checkpoint, and what is quantized so far.

The checkpoint's residual ``x`` and that behind the quantized layers ``y``, (N tokens, H), go
through the layers together. Before a weight is quantized, what it sees in both is at hand, some
sequences at a time, so that nothing wider than H is ever held for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.reference import Array, Ids, Steps, Weights

BLOCK_TOKENS = 2048  # of the sequences that go through a layer together

Indices: TypeAlias = npt.NDArray[np.intp]
Block: TypeAlias = tuple[slice, list[int]]  # tokens, and the lengths of their sequences


@dataclass(frozen=True)
class Inputs:
    """What some weights see for some tokens: in the checkpoint, and quantized so far.

    ``x`` and ``y`` are (tokens, columns); ``lost`` (tokens, H) is what the residual lacks by
    then, where the weight's output is added to it.
    """

    x: Array
    y: Array
    lost: Array | None = None


@dataclass(frozen=True)
class Stage:
    """Weights with one input, and that input, in blocks of tokens."""

    names: tuple[str, ...]
    blocks: Callable[[], Iterator[Inputs]] = field(repr=False)


class Streams:
    """Both streams. Quantized weights are put into ``quantized`` stage by stage."""

    def __init__(self, weights: Weights, sequences: Sequence[Ids]) -> None:
        self.quantized: dict[str, Array] = {}
        self.exact, self.rounded = Steps(weights), Steps(_overlaid(weights, self.quantized))
        self._blocks = list(_blocks([len(ids) for ids in sequences]))
        self._ids = np.concatenate(sequences)

    def begin(self) -> None:
        """Take the embeddings, the quantized one's as well if it is there."""
        self.x, self.y = self.exact.embed(self._ids), self.rounded.embed(self._ids)

    def exact_states(self) -> Iterator[Array]:
        """Compute what the checkpoint's head sees, some tokens at a time."""
        x = self.exact.embed(self._ids)
        for i in range(len(self.exact.config.layers)):
            for tokens, lengths in self._blocks:
                self.exact.layer(i, x[tokens], lengths)
        for tokens, _ in self._blocks:
            yield self.exact.final(x[tokens])

    def states(self) -> Iterator[Inputs]:
        """Give what the head sees at the end of both streams."""
        for tokens, _ in self._blocks:
            yield Inputs(self.exact.final(self.x[tokens]), self.rounded.final(self.y[tokens]))

    def layer(self, i: int) -> Iterator[Stage]:
        """Give a layer's stages; a stage's weights must be quantized before the next is taken.

        At the end both streams stand behind the layer, and its weights are released.
        """
        steps = self.exact
        yield Stage(steps.mixer_names(i), lambda: self._pairs(lambda s, x, n: s.mixer_input(i, x)))
        out = steps.mixer_output(i)
        yield Stage((out,), lambda: self._pairs(lambda s, x, n: s.mixed(i, x, n), lost=True))
        for s, x in ((self.exact, self.x), (self.rounded, self.y)):
            for tokens, lengths in self._blocks:
                x[tokens] += s.project(s.mixed(i, x[tokens], lengths), out)
        yield from self._experts(i) if steps.experts(i) else self._dense(i)
        self.quantized.clear()

    def _dense(self, i: int) -> Iterator[Stage]:
        names = self.exact.ffn_names(i)
        yield Stage(names[::2], lambda: self._pairs(lambda s, x, n: s.ffn_input(i, x)))
        yield Stage(
            names[1:2],
            lambda: self._pairs(lambda s, x, n: s.gated(names, s.ffn_input(i, x)), lost=True),
        )
        for s, x in ((self.exact, self.x), (self.rounded, self.y)):
            for tokens, _ in self._blocks:
                x[tokens] += s.project(s.gated(names, s.ffn_input(i, x[tokens])), names[1])

    def _experts(self, i: int) -> Iterator[Stage]:
        """One expert after the other, each by the tokens that take it in the quantized stream."""
        seen = [(s, s.ffn_input(i, x)) for s, x in self._both()]
        routes = [s.route(i, h) for s, h in seen]
        added = [np.zeros_like(self.x), np.zeros_like(self.y)]
        for e in range(self.exact.experts(i)):
            names = self.exact.ffn_names(i, e)
            mine = np.flatnonzero((routes[1][0] == e).any(axis=1))

            yield Stage(names[::2], partial(_chosen, seen, mine, None))
            yield Stage(names[1:2], partial(_chosen, seen, mine, names))
            for (s, h), (chosen, weights), total in zip(seen, routes, added, strict=True):
                tokens, place = np.nonzero(chosen == e)
                if len(tokens):
                    y = s.gated(names, h[tokens]) @ s.matrix(names[1]).T
                    total[tokens] += y * weights[tokens, place, None]
            for name in names:
                self.quantized.pop(name, None)
        self.x += added[0]
        self.y += added[1]

    def _both(self) -> tuple[tuple[Steps, Array], tuple[Steps, Array]]:
        return (self.exact, self.x), (self.rounded, self.y)

    def _pairs(
        self, see: Callable[[Steps, Array, list[int]], Array], *, lost: bool = False
    ) -> Iterator[Inputs]:
        for tokens, lengths in self._blocks:
            x, y = (see(s, r[tokens], lengths) for s, r in self._both())
            yield Inputs(x, y, self.x[tokens] - self.y[tokens] if lost else None)


def _chosen(
    seen: Sequence[tuple[Steps, Array]], tokens: Indices, names: tuple[str, str, str] | None
) -> Iterator[Inputs]:
    """Give what an expert sees for its tokens: its first weights, or with ``names`` its last."""
    for start in range(0, len(tokens), BLOCK_TOKENS):
        part = tokens[start : start + BLOCK_TOKENS]
        x, y = (s.gated(names, h[part]) if names else h[part] for s, h in seen)
        yield Inputs(x, y)


def _overlaid(weights: Weights, quantized: dict[str, Array]) -> Weights:
    """The same model, with what has been quantized in place of the checkpoint's weights."""

    def read(name: str, start: int, stop: int) -> Array:
        if ".experts." in name and stop == start + 1:  # stacked: one expert's matrix
            experts, matrix = name.removesuffix(".weight").rsplit(".", 1)
            one = quantized.get(f"{experts}.{start}.{matrix}.weight")
            if one is not None:
                return one[None]
        found = quantized.get(name)
        return weights.read(name, start, stop) if found is None else found[start:stop]

    return Weights(weights.config, weights.shapes, read)


def _blocks(lengths: Sequence[int]) -> Iterator[Block]:
    """Cut the sequences into blocks of about :data:`BLOCK_TOKENS`, whole sequences each."""
    start, held = 0, list[int]()
    for length in lengths:
        if held and sum(held) + length > BLOCK_TOKENS:
            yield slice(start, start + sum(held)), held
            start, held = start + sum(held), []
        held.append(length)
    yield slice(start, start + sum(held)), held
