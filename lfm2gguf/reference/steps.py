"""The forward pass of one layer in steps, for what looks at every linear layer's input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from lfm2gguf.reference.experts import Chosen
from lfm2gguf.reference.forward import Ids, Multiplier, Reference, multiplier
from lfm2gguf.reference.operations import swiglu
from lfm2gguf.reference.weights import CONV, Array, Weights


class Steps(Reference):
    """A model's layers, step by step; ``x`` is the residual (tokens, H) before the layer.

    Shapes as in :mod:`lfm2gguf.reference.forward`. ``lengths`` are the tokens of each sequence
    that ``x`` holds one after the other.
    """

    _until = ""  # the linear layer whose input is wanted, in place of its output

    def __init__(
        self,
        weights: Weights,
        like: Reference | None = None,
        multiplier: Callable[[Array], Multiplier] = multiplier,
    ) -> None:
        """Take layers apart; convolution and attention look as those of ``like`` do.

        Linear layers multiply as ``multiplier`` does, by default in float32.
        """
        super().__init__(weights)
        self._like = like
        self._multiplier = multiplier

    def embed(self, ids: Ids) -> Array:
        """Return the rows of the embedding, (tokens, H)."""
        return self._embed(ids)

    def layer(self, i: int, x: Array, lengths: Sequence[int]) -> None:
        """Take the residual through a whole layer, in place."""
        self._layer(i, x, lengths)

    def mixer_names(self, i: int) -> tuple[str, ...]:
        """Return the weights that see :meth:`mixer_input`."""
        if self.config.layers[i] == CONV:
            return (f"model.layers.{i}.conv.in_proj.weight",)
        return tuple(f"model.layers.{i}.self_attn.{part}_proj.weight" for part in "qkv")

    def mixer_output(self, i: int) -> str:
        """Return the weight that sees :meth:`mixed` and adds to the residual."""
        kind = "conv" if self.config.layers[i] == CONV else "self_attn"
        return f"model.layers.{i}.{kind}.out_proj.weight"

    def mixer_input(self, i: int, x: Array) -> Array:
        """Return what the convolution's or attention's first layers see."""
        return self._norm(x, f"model.layers.{i}.operator_norm")

    def mixed(self, i: int, x: Array, lengths: Sequence[int]) -> Array:
        """Return what the convolution's or attention's output layer sees."""
        part = copy.copy(self)  # threads go through a layer side by side
        part._until = self.mixer_output(i).removesuffix(".weight")
        mix = part._convolution if self.config.layers[i] == CONV else part._attention
        return mix(f"model.layers.{i}.", self.mixer_input(i, x), lengths)

    def ffn_names(self, i: int, expert: int | None = None) -> tuple[str, str, str]:
        """Return w1, w2 and w3 of a layer, or of one of its experts (:meth:`matrix` reads it)."""
        part = "" if expert is None else f"experts.{expert}."
        w1, w2, w3 = (f"model.layers.{i}.feed_forward.{part}w{n}.weight" for n in (1, 2, 3))
        return w1, w2, w3

    def ffn_input(self, i: int, x: Array) -> Array:
        """Return what w1 and w3 see."""
        return self._norm(x, f"model.layers.{i}.ffn_norm")

    def gated(self, names: tuple[str, str, str], h: Array) -> Array:
        """Return what w2 sees, ``silu(w1 h) * w3 h``, (tokens, F)."""
        w1, w3 = self.matrix(names[0]), self.matrix(names[2])
        gate, up = (np.empty((len(h), len(w1)), np.float32) for _ in range(2))
        multiply = self._multiplier(h)
        multiply(w1, gate)
        multiply(w3, up)
        swiglu(gate, up)
        return gate

    def project(self, x: Array, name: str) -> Array:
        """Return ``x @ W.T`` (+ bias)."""
        return self._linear(x, name.removesuffix(".weight"))

    def product(self, x: Array, weight: Array) -> Array:
        """Return ``x @ weight.T``."""
        out = np.empty((len(x), len(weight)), np.float32)
        self._multiplier(x)(weight, out)
        return out

    def experts(self, i: int) -> int:
        """Return the number of experts of a layer, 0 if it is dense."""
        name = f"model.layers.{i}.feed_forward.experts.w1.weight"
        return self.weights.shapes[name][0] if name in self.weights.shapes else 0

    def route(self, i: int, h: Array) -> tuple[Chosen, Array]:
        """Return for each token the experts it takes and their weights, (tokens, used)."""
        assert self.config.routing is not None
        name = f"model.layers.{i}.feed_forward."
        bias = name + "expert_bias"
        known = bias in self.weights.shapes
        gate = self._linear(h, name + "gate")
        return self.config.routing.route(gate, self.weights.read(bias) if known else None)

    def matrix(self, name: str) -> Array:
        """Return a weight (rows, columns); of an expert, ``...experts.3.w1.weight``."""
        if ".experts." not in name:
            return self.weights.read(name)
        experts, index, matrix = name.removesuffix(".weight").rsplit(".", 2)
        e = int(index)
        one: Array = self.weights.read(f"{experts}.{matrix}.weight", e, e + 1)[0]
        return one

    def final(self, x: Array) -> Array:
        """Return the states that the head sees."""
        return self._norm(x, "model.embedding_norm")

    def _convolve(self, x: Array, kernel: Array) -> Array:
        if self._like is None:
            return super()._convolve(x, kernel)
        return self._like._convolve(x, kernel)

    def _attend(self, q: Array, k: Array, v: Array) -> Array:
        return super()._attend(q, k, v) if self._like is None else self._like._attend(q, k, v)

    def _linear(self, x: Array, name: str) -> Array:
        return np.ascontiguousarray(x) if name == self._until else super()._linear(x, name)
