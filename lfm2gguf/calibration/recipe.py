"""A whole model: layer by layer, each tensor rounded for what the layers before have become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lfm2gguf.calibration.feedback import factor
from lfm2gguf.calibration.grids import Bytes
from lfm2gguf.calibration.moments import corrected, damped, gather
from lfm2gguf.calibration.rounding import Rounded, round_tensor
from lfm2gguf.calibration.streams import Inputs, Stage, Streams
from lfm2gguf.ggml import GGMLType
from lfm2gguf.reference import EMBEDDING, HEAD, Ids, Weights

EMBEDDING_IDENTITY = 1.0  # how far an embedding is kept as input, too, in mean squares
EMBEDDING_DAMPING = 0.001

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibratedTensor:
    """A tensor by its Hugging Face name (an expert's by its own), done."""

    name: str
    type: GGMLType
    tokens: int
    rounded: Rounded


def calibrate_layers(
    weights: Weights,
    sequences: Sequence[Ids],
    types: Mapping[str, GGMLType],
    done: Callable[[str, GGMLType], Bytes | None] = lambda name, type: None,
    progress: Progress | None = None,
) -> Iterator[CalibratedTensor]:
    """Quantize every linear layer, and the embedding, on the tokens of ``sequences``.

    Args:
        weights: the checkpoint's.
        sequences: token ids, each a text of its own.
        types: what each weight becomes, by the names that :class:`~lfm2gguf.reference.Steps` uses.
        done: gives the bytes of a tensor that an earlier run has finished.
        progress: called with layers done and in all.

    """
    streams = Streams(weights, sequences)
    layers = len(weights.config.layers)
    if types[EMBEDDING].block_size > 1:
        made = _embedding(streams, types[EMBEDDING])
        streams.quantized[EMBEDDING] = made.rounded.values
        yield made
    streams.begin()
    for i in range(layers):
        if progress:
            progress(i, layers)
        for stage in streams.layer(i):
            for made in _stage(streams, stage, types):
                streams.quantized[made.name] = made.rounded.values
                yield made
    if HEAD in weights.shapes and types[HEAD].block_size > 1:
        yield from _stage(streams, Stage((HEAD,), streams.states), types)
    if progress:
        progress(layers, layers)


def _stage(
    streams: Streams, stage: Stage, types: Mapping[str, GGMLType]
) -> Iterator[CalibratedTensor]:
    """Quantize weights that see the same input."""
    names = [name for name in stage.names if types[name].block_size > 1]
    if not names:
        return
    matrices = {name: streams.exact.matrix(name) for name in names}
    columns = next(iter(matrices.values())).shape[1]
    moments = gather(stage.blocks(), matrices, columns)
    mean = damped(moments.mean, moments.damping)
    triangle = factor(mean)
    for name, weight in matrices.items():
        target = corrected(weight, moments, name, triangle)
        rounded = round_tensor(types[name], weight, target, mean, triangle)
        yield CalibratedTensor(name, types[name], moments.tokens, rounded)


def _embedding(streams: Streams, type: GGMLType) -> CalibratedTensor:
    """Quantize an embedding for both its roles: the head sees the final states, the input all."""
    weight = streams.exact.matrix(EMBEDDING)
    states = (Inputs(h, h) for h in streams.exact_states())
    moments = gather(states, {}, weight.shape[1])
    mean = moments.mean
    average = mean.diagonal().mean()
    mean[np.diag_indices_from(mean)] += np.float32(EMBEDDING_IDENTITY) * average
    target = np.ascontiguousarray(weight.T)
    rounded = round_tensor(type, weight, target, damped(mean, EMBEDDING_DAMPING))
    return CalibratedTensor(EMBEDDING, type, moments.tokens, rounded)
