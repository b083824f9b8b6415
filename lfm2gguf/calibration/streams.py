"""Two models on their way through the same texts: the checkpoint, and what is quantized so far.

The checkpoint's residual ``x`` and that behind the quantized layers ``y``, (N tokens, H), go
through the layers together. Before a weight is quantized, what it sees in both is at hand, some
sequences at a time. What there is of all tokens waits in files: both residuals, and what the
quantized weight will see, so that no layer is computed twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.products import FLOAT32, Products
from lfm2gguf.calibration.spill import Rows, Spill
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.reference import EMBEDDING, Array, Ids, Reference, RetrievalReference, Steps, Weights

BLOCK_TOKENS = 2048  # of the sequences that go through a layer together
SAMPLE_TOKENS = 4096  # of all, that stand for a layer's where an expert's own are too few
PIECE_TOKENS = 1024  # of a block that go through a feed-forward layer together

Indices: TypeAlias = npt.NDArray[np.intp]
Block: TypeAlias = tuple[slice, list[int]]  # tokens, and the lengths of their sequences
See: TypeAlias = Callable[[Steps, Array, list[int]], Array]


@dataclass(frozen=True)
class Inputs:
    """What some weights see for some tokens, ``y`` (tokens, columns), quantized so far.

    ``x`` is the same in the checkpoint. Where the weight's output joins the residual, ``wanted``
    (tokens, H) is given in its place: what has to be added to get the checkpoint's residual.
    """

    y: Array
    x: Array | None = None
    wanted: Array | None = None


@dataclass(frozen=True)
class Stage:
    """Weights with one input, and that input, in blocks of tokens; it can be read once.

    An expert's weights see only its own tokens; ``layer`` gives what they would see of others.
    """

    names: tuple[str, ...]
    inputs: Iterator[Inputs] = field(repr=False)
    layer: Callable[[], Iterator[Inputs]] | None = field(default=None, repr=False)


class Streams:
    """Both streams. Quantized weights are put into ``quantized`` stage by stage.

    ``x`` and ``y`` are there once they have begun, until the ``with`` block is left.
    """

    x: Rows
    y: Rows

    def __init__(
        self,
        weights: Weights,
        sequences: Sequence[Ids],
        crew: Crew = ALONE,
        folder: Path | None = None,
        like: Reference | None = None,
        products: Products = FLOAT32,
    ) -> None:
        self.quantized: dict[str, Array] = {}
        self._held: dict[str, Array] = {}  # the checkpoint's weights that are in use
        self._crew, self._folder = crew, folder
        exact = _overlaid(weights, self._held)
        self.exact = Steps(exact, like, products.multiplier)
        self.rounded = Steps(_overlaid(exact, self.quantized), like, products.multiplier)
        self._files = contextlib.ExitStack()
        self._sequences = sequences
        self._blocks = list(_blocks([len(ids) for ids in sequences]))
        self._ids = np.concatenate(sequences)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return len(self._ids)

    def begin(self) -> None:
        """Take the embeddings, the quantized one's as well if it is there, and release it."""
        self.x, self.y = (
            self._files.enter_context(contextlib.closing(Rows(self._folder, s.embed(self._ids))))
            for s in (self.exact, self.rounded)
        )
        self._release(EMBEDDING)

    def exact_states(self, tokens: int) -> Iterator[Array]:
        """Compute what the checkpoint's head sees in sequences of about so many tokens in all."""
        step = max(1, len(self._ids) // tokens)
        sequences = self._sequences[::step]
        blocks = list(_blocks([len(ids) for ids in sequences]))
        x = self.exact.embed(np.concatenate(sequences))
        for i in range(len(self.exact.config.layers)):

            def advance(block: Block, i: int = i) -> None:
                self.exact.layer(i, x[block[0]], block[1])

            self._crew.all(advance, blocks)
        for here, _ in blocks:
            yield self.exact.final(x[here])

    def states(self) -> Iterator[Inputs]:
        """Give what the head sees at the end of both streams."""
        for tokens, _ in self._blocks:
            yield Inputs(self.rounded.final(self.y[tokens]), self.exact.final(self.x[tokens]))

    def pooled(self, forward: RetrievalReference) -> Iterator[Inputs]:
        """Give what a retrieval model's dense layer sees at the end of both streams."""
        for states, (_, lengths) in zip(self.states(), self._blocks, strict=True):
            assert states.x is not None
            y, x = (np.concatenate(forward.pooled(s, lengths)) for s in (states.y, states.x))
            yield Inputs(y, x)

    def layer(self, i: int) -> Iterator[Stage]:
        """Give a layer's stages; a stage's weights must be quantized before the next is taken.

        At the end both streams stand behind the layer, and its weights are released.
        """
        steps = self.exact
        first, out = steps.mixer_names(i), steps.mixer_output(i)
        self._hold(*first)
        yield Stage(first, self._normed(lambda s, x: s.mixer_input(i, x)))
        yield from self._joining(out, lambda s, x, lengths: s.mixed(i, x, lengths))
        self._release(*first)
        yield from self._experts(i) if steps.experts(i) else self._dense(i)

    def _dense(self, i: int) -> Iterator[Stage]:
        w1, w2, w3 = names = self.exact.ffn_names(i)
        self._hold(w1, w3)
        yield Stage((w1, w3), self._normed(lambda s, x: s.ffn_input(i, x)))
        yield from self._joining(w2, lambda s, x, _: _gated(s, names, s.ffn_input(i, x)), (w1, w3))

    def _normed(self, see: Callable[[Steps, Array], Array]) -> Iterator[Inputs]:
        return self._crew.each(
            lambda block: Inputs(
                see(self.rounded, self.y[block[0]]), see(self.exact, self.x[block[0]])
            ),
            self._blocks,
        )

    def _joining(self, name: str, see: See, used: Sequence[str] = ()) -> Iterator[Stage]:
        """Give the stage of a weight that adds to the residual, then add it to both.

        The weights ``used`` are released as soon as ``see`` needs them no more.
        """
        self._hold(name)
        with Spill(self._folder) as spill:
            yield Stage((name,), inputs := self._wanted(name, see, spill, used))
            _drain(inputs)
            spill.rewind()

            def add(work: tuple[slice, Array]) -> None:
                tokens, seen = work
                self.y[tokens] += self.rounded.project(seen, name)

            self._crew.all(add, ((tokens, spill.take()) for tokens, _ in self._blocks))
        self._release(name)

    def _wanted(self, name: str, see: See, spill: Spill, used: Sequence[str]) -> Iterator[Inputs]:
        def advance(block: Block) -> Inputs:
            tokens, lengths = block
            x, y = self.x[tokens], self.y[tokens]
            self.x[tokens] = x = x + self.exact.project(see(self.exact, x, lengths), name)
            return Inputs(see(self.rounded, y, lengths), wanted=x - y)

        for inputs in self._crew.each(advance, self._blocks):
            spill.put(inputs.y)
            yield inputs
        self._release(*used)

    def _experts(self, i: int) -> Iterator[Stage]:
        """One expert after the other, each by the tokens that take it in the quantized stream."""
        both = self.x[:], self.y[:]
        seen = [
            (s, s.ffn_input(i, x)) for s, x in zip((self.exact, self.rounded), both, strict=True)
        ]
        routes = [s.route(i, h) for s, h in seen]
        sample = np.arange(0, self.tokens, max(1, self.tokens // SAMPLE_TOKENS))
        for e in range(self.exact.experts(i)):
            w1, w2, w3 = names = self.exact.ffn_names(i, e)
            self._hold(*names)
            mine = np.flatnonzero((routes[1][0] == e).any(axis=1))
            for weights, behind in (((w1, w3), None), ((w2,), names)):
                others = partial(self._chosen, seen, sample, behind)
                yield Stage(weights, self._chosen(seen, mine, behind), others)
            for (s, h), (chosen, shares), total in zip(seen, routes, both, strict=True):
                tokens, place = np.nonzero(chosen == e)
                share = shares[tokens, place, None]

                add = partial(_add_expert, s, names, h, total, tokens, share)
                self._crew.all(add, pieces(len(tokens), PIECE_TOKENS))
            self._release(*names)
        self.x[:], self.y[:] = both

    def _chosen(
        self,
        seen: Sequence[tuple[Steps, Array]],
        tokens: Indices,
        names: tuple[str, str, str] | None,
    ) -> Iterator[Inputs]:
        """Give what an expert sees of tokens: its first weights, or with ``names`` its last."""

        def see(part: slice) -> Inputs:
            x, y = (_gated(s, names, h[tokens[part]]) if names else h[tokens[part]]
                    for s, h in seen)  # fmt: skip
            return Inputs(y, x)

        return self._crew.each(see, pieces(len(tokens), BLOCK_TOKENS))

    def _hold(self, *names: str) -> None:
        """Read weights once, not for each block."""
        for name in names:
            self._held[name] = self.exact.matrix(name)

    def _release(self, *names: str) -> None:
        for name in names:
            self._held.pop(name, None)
            self.quantized.pop(name, None)


def _gated(steps: Steps, names: tuple[str, str, str], h: Array) -> Array:
    out = np.empty((len(h), len(steps.matrix(names[0]))), np.float32)
    for part in pieces(len(h), PIECE_TOKENS):
        out[part] = steps.gated(names, h[part])
    return out


def _add_expert(
    steps: Steps,
    names: tuple[str, str, str],
    h: Array,
    total: Array,
    tokens: Indices,
    share: Array,
    part: slice,
) -> None:
    """Add what an expert answers to some of its tokens, which it meets once each."""
    y = steps.product(steps.gated(names, h[tokens[part]]), steps.matrix(names[1]))
    total[tokens[part]] += y * share[part]


def _drain(inputs: Iterable[Inputs]) -> None:
    for _ in inputs:
        pass


def _overlaid(weights: Weights, over: dict[str, Array]) -> Weights:
    """The same model, with what is ``over`` it in place of its weights."""

    def read(name: str, start: int, stop: int) -> Array:
        if ".experts." in name and stop == start + 1:  # stacked: one expert's matrix
            experts, matrix = name.removesuffix(".weight").rsplit(".", 1)
            one = over.get(f"{experts}.{start}.{matrix}.weight")
            if one is not None:
                return one[None]
        found = over.get(name)
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
