"""LFM2's forward pass in NumPy: what a GGUF file is judged by.

It follows transformers (``models/lfm2/modeling_lfm2.py``, version 5) in float32, layer by
layer over all sequences, so that each weight is read and widened once for thousands of
tokens: memory is one layer, the activations and one block of logits, however large the
model is. The tokens are cut among threads, each of which has a BLAS of one thread: norms,
activations and attention are shared as products are, and nothing spins.

Shapes: N tokens of all sequences together, T tokens of one sequence, H hidden, F feed-forward,
D head, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.blas import one_thread
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.errors import TensorError
from lfm2gguf.reference.experts import Chosen
from lfm2gguf.reference.operations import (
    causal_attention,
    causal_convolution,
    rms_norm,
    rotary_tables,
    rotate,
    swiglu,
)
from lfm2gguf.reference.weights import CONV, EMBEDDING, Array, Weights

Ids: TypeAlias = npt.NDArray[np.int32]
Observer: TypeAlias = Callable[[str, Array], None]
Progress: TypeAlias = Callable[[int, int], None]
Multiplier: TypeAlias = Callable[[Array, Array], object]

GROUP_TOKENS = 16384  # tokens that go through the layers together: bounds the activations
LINEAR_TOKENS = 1024  # tokens of feed-forward products: bounds their (tokens, F) buffers
THREAD_TOKENS = 256  # of them that a thread has at least: fewer do not pay for packing weights
EVEN_TOKENS = 16  # pieces are multiples of them: what is left over takes kernels of other sums
VOCABULARY_ROWS = 1024  # of the embedding or head, widened at a time: memory that malloc keeps


def multiplier(x: Array) -> Multiplier:
    """Return what fills ``out`` (tokens, rows) with ``x @ weight.T``, given ``weight, out``."""
    return lambda weight, out: np.matmul(x, weight.T, out=out)


class Reference:
    """The forward pass over one model's weights.

    ``observe(name, x)`` is called with the input ``(tokens, features)`` of every linear
    layer, by the name of its weight: mean squares of it make an importance matrix.
    ``finite_only=False`` lets NaN and infinity through, for a model that is being judged.
    """

    _crew = ALONE  # whose threads share the tokens
    _multiplier: Callable[[Array], Multiplier] = staticmethod(multiplier)  # in linear layers

    def __init__(
        self, weights: Weights, observe: Observer | None = None, *, finite_only: bool = True
    ) -> None:
        self.weights = weights
        self.config = weights.config
        self._observe = observe
        self._finite_only = finite_only

    def of(self, weights: Weights) -> Reference:
        """Return the same forward pass over other weights."""
        return Reference(weights, self._observe, finite_only=self._finite_only)

    def states(
        self,
        sequences: Sequence[Ids],
        positions: Sequence[npt.NDArray[np.intp]],
        progress: Progress | None = None,
    ) -> Array:
        """Compute the final, normed hidden states at ``positions[i]`` of each sequence.

        Return (sum of positions, H), sequence after sequence. ``progress(done, total)``
        counts layers.

        Raises:
            TensorError: a tensor is missing, a token id lies outside the embedding, or the
                states are not finite.

        """
        groups = list(groups_of(sequences))
        layers = len(self.config.layers)
        kept = []
        with self._shared() as shared:
            for g, group in enumerate(groups):

                def step(done: int, g: int = g) -> None:
                    if progress:
                        progress(g * layers + done, len(groups) * layers)

                kept.append(shared._forward(sequences[group], positions[group], step))
        result = np.concatenate(kept)
        self._check_finite(result)
        return result

    def logits(self, states: Array, out: Array | None = None) -> Array:
        """Give logits (n, V) for hidden states (n, H); ``out`` is reused where given."""
        head, vocabulary = self.weights.head, self.weights.vocabulary
        found = np.empty((len(states), vocabulary), np.float32) if out is None else out

        def part(rows: slice) -> None:
            weight = self.weights.read(head, rows.start, rows.stop)
            np.matmul(states, weight.T, out=found[:, rows])

        with self._shared() as shared:
            shared._crew.all(part, pieces(vocabulary, VOCABULARY_ROWS))
        return found

    @contextmanager
    def _shared(self) -> Iterator[Reference]:
        """Give the same forward pass to as many threads as the BLAS had.

        One that is observed stays alone: its observer sees one input after the other.
        """
        if self._observe:
            yield self
            return
        with one_thread() as threads, Crew(threads) as crew:
            shared = copy.copy(self)
            shared._crew = crew
            yield shared

    def _pieces(self, tokens: int) -> list[slice]:
        """Cut tokens into pieces for the crew."""
        threads = self._crew.threads
        share = -(-tokens // threads // EVEN_TOKENS) * EVEN_TOKENS
        most = max(THREAD_TOKENS, LINEAR_TOKENS // threads)
        return pieces(tokens, min(max(share, EVEN_TOKENS), most))

    def _check_finite(self, states: Array) -> None:
        if self._finite_only and not np.isfinite(states).all():
            raise TensorError(
                "the reference's hidden states hold NaN or infinity; is the checkpoint damaged?"
            )

    def _forward(
        self,
        sequences: Sequence[Ids],
        positions: Sequence[npt.NDArray[np.intp]],
        step: Callable[[int], None],
    ) -> Array:
        lengths = [len(ids) for ids in sequences]
        spans = [slice(0, n) for n in lengths]
        x = self._embed(np.concatenate(sequences))
        kinds = self.config.layers
        last = max((i for i, kind in enumerate(kinds) if kind != CONV), default=-1)
        for i in range(len(kinds)):
            step(i)
            self._mix(i, x, lengths)
            if i == last and not self._observe:
                # No token looks far any more: what is seen by none that is asked for goes.
                spans = [self._seen(i, p, n) for p, n in zip(positions, lengths, strict=True)]
                parts = zip(_cut(x, lengths), spans, strict=True)
                x = np.concatenate([part[span] for part, span in parts])
                lengths = [span.stop - span.start for span in spans]
            self._feed_forward(f"model.layers.{i}.", x)
        step(len(kinds))
        starts = np.cumsum([0, *lengths[:-1]]) - [span.start for span in spans]
        rows = [p + start for p, start in zip(positions, starts, strict=True)]
        return self._norm(x[np.concatenate(rows)], "model.embedding_norm")

    def _seen(self, i: int, positions: npt.NDArray[np.intp], length: int) -> slice:
        """Return the tokens that the ones asked for see through the convolutions after layer i."""
        if not positions.size:
            return slice(0, 0)
        layers = len(self.config.layers)
        kernels = (f"model.layers.{j}.conv.conv.weight" for j in range(i + 1, layers))
        shapes = [self.weights.shapes[name] for name in kernels if name in self.weights.shapes]
        reach = sum(math.prod(shape[1:]) - 1 for shape in shapes)  # centred ones see half as far
        return slice(
            max(0, int(positions.min()) - reach), min(length, int(positions.max()) + 1 + reach)
        )

    def _layer(self, i: int, x: Array, lengths: Sequence[int]) -> None:
        """Take the residual ``x`` (N, H) through a whole layer, in place."""
        self._mix(i, x, lengths)
        self._feed_forward(f"model.layers.{i}.", x)

    def _mix(self, i: int, x: Array, lengths: Sequence[int]) -> None:
        """Add to ``x`` what its layer's convolution or attention makes of it."""
        mix = self._convolution if self.config.layers[i] == CONV else self._attention
        layer = f"model.layers.{i}."
        x += mix(layer, self._norm(x, layer + "operator_norm"), lengths)

    def _embed(self, ids: Ids) -> Array:
        rows, width = self.weights.shapes[EMBEDDING]
        if ids.min() < 0 or ids.max() >= rows:
            raise TensorError(
                f"token id {ids.max()} is outside the embedding's {rows} rows; is it this model's "
                "tokenizer?"
            )
        x = np.empty((len(ids), width), np.float32)
        for start in range(0, rows, VOCABULARY_ROWS):
            here = np.flatnonzero((ids >= start) & (ids < start + VOCABULARY_ROWS))
            if here.size:
                table = self.weights.read(EMBEDDING, start, start + VOCABULARY_ROWS)
                x[here] = table[ids[here] - start]
        return x

    def _norm(self, x: Array, name: str) -> Array:
        return rms_norm(x, self.weights.read(name + ".weight"), self.config.norm_eps)

    def _linear(self, x: Array, name: str) -> Array:
        """Compute ``x @ W.T`` (+ bias) for the linear layer ``name``."""
        if self._observe:
            self._observe(name + ".weight", x)
        weight = self.weights.read(name + ".weight")
        y = np.empty((len(x), len(weight)), np.float32)
        self._crew.all(
            lambda rows: self._multiplier(x[rows])(weight, y[rows]), self._pieces(len(x))
        )
        if name + ".bias" in self.weights.shapes:
            y += self.weights.read(name + ".bias")
        return y

    def _convolution(self, layer: str, h: Array, lengths: Sequence[int]) -> Array:
        """Compute the gated short convolution ``out(C * conv(B * x))`` of ``B, C, x = in(h)``."""
        b, c, x = np.split(self._linear(h, layer + "conv.in_proj"), 3, axis=1)
        b *= x
        kernel = self.weights.read(layer + "conv.conv.weight").reshape(b.shape[1], -1)
        mixed = self._convolved(layer, b, kernel, lengths)
        if layer + "conv.conv.bias" in self.weights.shapes:
            mixed += self.weights.read(layer + "conv.conv.bias")
        mixed *= c
        return self._linear(mixed, layer + "conv.out_proj")

    def _attention(self, layer: str, h: Array, lengths: Sequence[int]) -> Array:
        """Compute grouped-query attention with normed, rotated queries and keys."""
        name = layer + "self_attn."
        config = self.config
        q = self._linear(h, name + "q_proj").reshape(len(h), config.heads, -1)
        k = self._linear(h, name + "k_proj").reshape(len(h), config.kv_heads, -1)
        v = self._linear(h, name + "v_proj").reshape(len(h), config.kv_heads, -1)
        q = self._norm(q, name + "q_layernorm")
        k = self._norm(k, name + "k_layernorm")
        return self._linear(self._attended(layer, q, k, v, lengths), name + "out_proj")

    def _convolved(self, layer: str, x: Array, kernel: Array, lengths: Sequence[int]) -> Array:
        """Convolve each sequence of ``x`` (N, H) with ``kernel`` (H, L)."""
        parts = self._crew.each(lambda part: self._convolve(part, kernel), _cut(x, lengths))
        return np.concatenate(list(parts))

    def _attended(self, layer: str, q: Array, k: Array, v: Array, lengths: Sequence[int]) -> Array:
        """Rotate queries and keys (N, heads, D) and attend in each sequence: (N, heads * D)."""
        cos, sin = rotary_tables(max(lengths), q.shape[-1], self.config.rope_theta)

        def attend(part: tuple[Array, Array, Array]) -> Array:
            q, k, v = part
            return self._attend(rotate(q, cos, sin), rotate(k, cos, sin), v)

        parts = zip(_cut(q, lengths), _cut(k, lengths), _cut(v, lengths), strict=True)
        return np.concatenate(list(self._crew.each(attend, parts)))

    def _convolve(self, x: Array, kernel: Array) -> Array:
        return causal_convolution(x, kernel)

    def _attend(self, q: Array, k: Array, v: Array) -> Array:
        return causal_attention(q, k, v)

    def _feed_forward(self, layer: str, x: Array) -> None:
        """Add SwiGLU, ``w2(silu(w1 h) * w3 h)`` with ``h = norm(x)``, to ``x``."""
        name = layer + "feed_forward."
        norm = layer + "ffn_norm"
        if name + "gate.weight" in self.weights.shapes:
            self._mixture(name, self._norm(x, norm), x)
            return
        names = (f"{name}w{i}.weight" for i in (1, 2, 3))
        matrices = tuple(self._crew.each(self.weights.read, names))

        def add(piece: slice) -> None:
            part = x[piece]
            for rows, y in self._swiglu(name, matrices, self._norm(part, norm)):
                part[rows] += y

        self._crew.all(add, self._pieces(len(x)))

    def _mixture(self, name: str, h: Array, x: Array) -> None:
        """Add to ``x``, for each token, the weighted answers of the experts that it takes."""
        chosen, weights = self._route(name, h)

        def answers(i: int) -> list[tuple[Chosen, Array]]:
            return list(self._expert(name, h, i, chosen, weights))

        for parts in self._crew.each(answers, map(int, np.unique(chosen))):
            for tokens, y in parts:
                x[tokens] += y

    def _route(self, name: str, h: Array) -> tuple[Chosen, Array]:
        """Return the experts of each token, and their weights."""
        assert self.config.routing is not None
        bias = name + "expert_bias"
        return self.config.routing.route(
            self._linear(h, name + "gate"),
            self.weights.read(bias) if bias in self.weights.shapes else None,
        )

    def _expert(
        self, name: str, h: Array, i: int, chosen: Chosen, weights: Array
    ) -> Iterator[tuple[Chosen, Array]]:
        """Yield an expert's tokens, and its weighted answers to them, some at a time."""
        tokens, place = np.nonzero(chosen == i)
        matrices = tuple(
            self.weights.read(f"{name}experts.w{m}.weight", i, i + 1)[0] for m in (1, 2, 3)
        )
        for rows, y in self._swiglu(f"{name}experts.{i}.", matrices, h[tokens]):
            yield tokens[rows], y * weights[tokens[rows], place[rows], None]

    def _swiglu(
        self, name: str, matrices: tuple[Array, ...], h: Array
    ) -> Iterator[tuple[slice, Array]]:
        """Yield ``w2(silu(w1 h) * w3 h)``, some rows at a time."""
        w1, w2, w3 = matrices
        gate, up = np.empty((2, min(LINEAR_TOKENS, len(h)), len(w1)), np.float32)
        for start in range(0, len(h), LINEAR_TOKENS):
            part = h[start : start + LINEAR_TOKENS]
            g, u = gate[: len(part)], up[: len(part)]
            multiply = self._multiplier(part)
            multiply(w1, g)
            multiply(w3, u)
            swiglu(g, u)
            if self._observe:
                self._observe(name + "w1.weight", part)
                self._observe(name + "w3.weight", part)
                self._observe(name + "w2.weight", g)
            y = np.empty((len(part), len(w2)), np.float32)
            self._multiplier(g)(w2, y)
            yield slice(start, start + len(part)), y


def _cut(x: Array, lengths: Sequence[int]) -> list[Array]:
    return np.split(x, np.cumsum(lengths)[:-1])


def groups_of(sequences: Sequence[Ids], tokens: int = GROUP_TOKENS) -> Iterator[slice]:
    """Yield slices of consecutive sequences that go through the layers together.

    Each holds at most ``tokens``, or one sequence.
    """
    start, held = 0, 0
    for i, ids in enumerate(sequences):
        if held and held + len(ids) > tokens:
            yield slice(start, i)
            start, held = i, 0
        held += len(ids)
    yield slice(start, len(sequences))
