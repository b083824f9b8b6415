"""A whole model: layer by layer, each tensor rounded for what the layers before have become."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lfm2gguf.blas import one_thread
from lfm2gguf.calibration.feedback import factor
from lfm2gguf.calibration.grids import Bytes, Floats
from lfm2gguf.calibration.moments import Moments, damp, gather, targets
from lfm2gguf.calibration.products import FLOAT32, Products
from lfm2gguf.calibration.rounding import Rounded, round_tensor
from lfm2gguf.calibration.streams import Inputs, Stage, Streams
from lfm2gguf.crew import ALONE, Crew
from lfm2gguf.executors import spread
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, compiled_do_all, dequantize, warm_up
from lfm2gguf.reference import (
    DENSE,
    EMBEDDING,
    HEAD,
    Ids,
    Reference,
    RetrievalReference,
    Weights,
)

EMBEDDING_IDENTITY = 1.0  # how far an embedding is kept as input, too, in mean squares
EMBEDDING_DAMPING = 0.001
EMBEDDING_TOKENS = 8192  # of the text, from all over it
MATRICES = 8  # that are on their way to an executor's workers: bounds what is held

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibratedTensor:
    """A tensor by its Hugging Face name (an expert's by its own), finished on ``tokens`` tokens."""

    name: str
    type: GGMLType
    tokens: int
    rounded: Rounded


def calibrate_layers(
    forward: Reference,
    sequences: Sequence[Ids],
    types: Mapping[str, GGMLType],
    done: Callable[[str], Bytes | None] = lambda name: None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    *,
    threads: int | None = None,
    folder: Path | None = None,
    products: Products = FLOAT32,
) -> Iterator[CalibratedTensor]:
    """Quantize every linear layer, and the embedding, on the tokens of ``sequences``.

    Args:
        forward: the checkpoint's forward pass. Of a retrieval model the embedding is rounded as
            input alone, and the dense layer for what is pooled.
        sequences: token ids, each a text of its own.
        types: what each weight becomes, by the names that :class:`~lfm2gguf.reference.Steps` uses.
        done: gives the bytes of a tensor that an earlier run has finished; it is used as it is,
            and not given again.
        progress: called with layers done and in all.
        executor: what rounds the matrices that see the same input, such as a layer's experts; it
            is sent each with its moments, 8 bytes for each pair of columns.
        threads: that share the work, by default one for each processor. The values are the same.
        folder: where both residuals and one layer's activations wait, 4 bytes for each token and
            column.
        products: how the forward passes and the moments multiply.

    """
    weights = forward.weights
    retrieval = forward if isinstance(forward, RetrievalReference) else None
    _load_kernels(weights, types)
    with (
        Crew(threads) as crew,
        one_thread(),
        Streams(weights, sequences, crew, folder, forward, products) as streams,
    ):
        layers = len(weights.config.layers)
        work = _Work(streams, types, done, crew, executor, products)
        if progress:
            progress(0, layers)
        yield from work.embedding(head=retrieval is None)
        streams.begin()
        for i in range(layers):
            if progress:
                progress(i, layers)
            for stage in streams.layer(i):
                yield from work.stage(stage)
        if HEAD in weights.shapes:
            yield from work.stage(Stage((HEAD,), streams.states()))
        if retrieval is not None and DENSE in weights.shapes:
            yield from work.stage(Stage((DENSE,), streams.pooled(retrieval)))
        if progress:
            progress(layers, layers)


def _load_kernels(weights: Weights, types: Mapping[str, GGMLType]) -> None:
    """Load compiled kernels where the whole model is worth it: a tensor alone is not."""
    codecs = [CODECS[type] for type in sorted(set(types.values()), key=lambda type: type.id)]
    if compiled_do_all(codecs, sum(math.prod(shape) for shape in weights.shapes.values())):
        warm_up(codecs, dtypes=[np.dtype(np.float32)])


@dataclass(frozen=True)
class _Rounding:
    """A matrix to be rounded, and what its layer sees."""

    name: str
    type: GGMLType
    weight: Floats
    target: Floats
    mean: Floats
    triangle: Floats


def round_one(one: _Rounding, crew: Crew = ALONE) -> Rounded:
    """Round a matrix, here or on a worker."""
    with one_thread():
        return round_tensor(one.type, one.weight, one.target, one.mean, one.triangle, crew)


@dataclass(frozen=True)
class _Work:
    """What there is to do, and what has been done before."""

    streams: Streams
    types: Mapping[str, GGMLType]
    done: Callable[[str], Bytes | None]
    crew: Crew
    executor: Executor | None = None
    products: Products = FLOAT32

    def stage(self, stage: Stage) -> Iterator[CalibratedTensor]:
        """Quantize weights that see the same input."""
        names = [name for name in stage.names if self._is_open(name)]
        if not names:
            return
        matrices = {name: self.streams.exact.matrix(name) for name in names}
        columns = next(iter(matrices.values())).shape[1]
        moments = self._moments(stage.inputs, columns)
        if moments.missing and stage.layer is not None:
            moments.towards(self._moments(stage.layer(), columns))
        lacking = moments.lacking(matrices, self.crew)
        mean = moments.mean
        damp(mean, moments.damping)
        triangle = factor(mean, self.crew)
        work = (
            _Rounding(name, self.types[name], matrices[name], target, mean, triangle)
            for name, target in targets(matrices, lacking, moments.joins, triangle, self.crew)
        )
        for name, rounded in self._rounded(work):
            yield self._finish(name, moments.tokens, rounded)

    def _rounded(self, work: Iterator[_Rounding]) -> Iterator[tuple[str, Rounded]]:
        """Round matrices that see the same input: one does not need another."""
        if self.executor is None:
            yield from ((one.name, round_one(one, self.crew)) for one in work)
            return
        done = spread(self.executor, round_one, work, "calibrating", window=MATRICES)
        yield from ((one.name, rounded) for one, rounded in done)

    def embedding(self, *, head: bool) -> Iterator[CalibratedTensor]:
        """Quantize it for its roles: the ``head`` sees the final states, the input all tokens.

        Since it is kept as input as well, few tokens say enough of the head's.
        """
        if not self._is_open(EMBEDDING):
            return
        weight = self.streams.exact.matrix(EMBEDDING)
        states = map(Inputs, self.streams.exact_states(EMBEDDING_TOKENS))
        moments = self._moments(states if head else (), weight.shape[1])
        damp(moments.mean, EMBEDDING_IDENTITY)
        damp(moments.mean, EMBEDDING_DAMPING)
        type = self.types[EMBEDDING]
        rounded = round_tensor(type, weight, weight.T, moments.mean, crew=self.crew)
        yield self._finish(EMBEDDING, self.streams.tokens, rounded)

    def _moments(self, inputs: Iterable[Inputs], columns: int) -> Moments:
        return gather(inputs, columns, self.crew, self.products)

    def _is_open(self, name: str) -> bool:
        """Say whether a tensor is still to be quantized; take what an earlier run finished."""
        type = self.types.get(name)
        if type is None or type.block_size == 1:
            return False
        data = self.done(name)
        if data is None:
            return True
        shape = self.streams.exact.matrix(name).shape
        self.streams.quantized[name] = dequantize(data, type, shape)
        return False

    def _finish(self, name: str, tokens: int, rounded: Rounded) -> CalibratedTensor:
        self.streams.quantized[name] = rounded.values
        return CalibratedTensor(name, self.types[name], tokens, rounded)
