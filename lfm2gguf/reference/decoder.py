"""The forward pass a token at a time, for texts that a model writes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lfm2gguf.crew import ALONE, Crew
from lfm2gguf.reference.forward import Ids, Multiplier, Reference, multiplier
from lfm2gguf.reference.operations import rotary_tables, rotate, swiglu
from lfm2gguf.reference.weights import Array, Weights

ROWS = 512  # of a matrix that are widened together: they are still in cache when multiplied


class Decoder(Reference):
    """Several texts side by side, all of which go on by one token in each step.

    What earlier tokens have left behind is kept: inputs of convolutions, keys and values of
    ``length`` tokens. The weights are read anew in each step, so that many texts pay. The
    threads of ``crew`` share the matrices: the values are the same. Linear layers multiply as
    ``multiplier`` does, by default in float32.
    """

    def __init__(
        self,
        weights: Weights,
        texts: int,
        length: int,
        crew: Crew = ALONE,
        multiplier: Callable[[Array], Multiplier] = multiplier,
    ) -> None:
        super().__init__(weights)
        self._crew, self._multiplier = crew, multiplier
        self._texts, self._length = texts, length
        self._position = 0
        self._kept: dict[str, Array] = {}

    def step(self, ids: Ids) -> Array:
        """Take in the next token of each text, (texts,); return the head's input, (texts, H).

        Raises:
            TensorError: a tensor is missing, or the states are not finite.

        """
        x = self._embed(ids)
        for i in range(len(self.config.layers)):
            self._layer(i, x, ())
        self._position += 1
        states = self._norm(x, "model.embedding_norm")
        self._check_finite(states)
        return states

    def logits(self, states: Array, out: Array | None = None) -> Array:
        """Give logits (n, V) for hidden states (n, H); ``out`` is reused where given."""
        return self._product(states, self.weights.head, out)

    def _linear(self, x: Array, name: str) -> Array:
        y = self._product(x, name + ".weight")
        if name + ".bias" in self.weights.shapes:
            y += self.weights.read(name + ".bias")
        return y

    def _product(self, x: Array, name: str, out: Array | None = None) -> Array:
        """Compute ``x @ W.T``, some rows of ``W`` at a time."""
        rows = self.weights.shapes[name][0]
        y = np.empty((len(x), rows), np.float32) if out is None else out
        multiply = self._multiplier(x)

        def part(start: int) -> None:
            weight = self.weights.read(name, start, start + ROWS)
            multiply(weight, y[:, start : start + ROWS])

        self._crew.all(part, range(0, rows, ROWS))
        return y

    def _feed_forward(self, layer: str, x: Array) -> None:
        name = layer + "feed_forward."
        if name + "gate.weight" in self.weights.shapes:
            super()._feed_forward(layer, x)
            return
        h = self._norm(x, layer + "ffn_norm")
        gate, up = (self._product(h, f"{name}w{i}.weight") for i in (1, 3))
        swiglu(gate, up)
        x += self._product(gate, name + "w2.weight")

    def _convolved(self, layer: str, x: Array, kernel: Array, lengths: Sequence[int]) -> Array:
        past = self._room(layer, (kernel.shape[1], *x.shape))
        past[:-1] = past[1:]
        past[-1] = x
        mixed: Array = np.einsum("tnh,ht->nh", past, kernel)
        return mixed

    def _attended(self, layer: str, q: Array, k: Array, v: Array, lengths: Sequence[int]) -> Array:
        (_, heads, width), kv_heads, here = q.shape, k.shape[1], self._position
        cos, sin = (
            table[here : here + 1]
            for table in rotary_tables(self._length, width, self.config.rope_theta)
        )
        shape = (2, self._texts, kv_heads, self._length, width)
        keys, values = self._room(layer, shape)
        keys[:, :, here], values[:, :, here] = rotate(k, cos, sin), v
        queries: Array = rotate(q * np.float32(width**-0.5), cos, sin)
        queries = queries.reshape(self._texts, kv_heads, heads // kv_heads, width)
        scores = queries @ keys[:, :, : here + 1].swapaxes(2, 3)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        mixed = scores @ values[:, :, : here + 1]
        mixed = mixed / scores.sum(axis=-1, keepdims=True)
        out: Array = mixed.reshape(self._texts, heads * width)
        return out

    def _room(self, layer: str, shape: tuple[int, ...]) -> Array:
        """Return what a layer keeps, zeros at first."""
        if layer not in self._kept:
            self._kept[layer] = np.zeros(shape, np.float32)
        return self._kept[layer]
