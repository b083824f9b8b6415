"""One file measured: the reference, the dequantized file and llama.cpp, compared in pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf import llamacpp
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Reference, RetrievalReference, Settings, Weights
from lfm2gguf.verification.material.models import Candidate, llamacpp_ids
from lfm2gguf.verification.material.preparation import Prepared
from lfm2gguf.verification.measure.engine import Engine
from lfm2gguf.verification.measure.figures import Figures, summarize
from lfm2gguf.verification.measure.scorers import (
    LlamaCppEmbedder,
    LlamaCppScorer,
    LogitsStore,
    NumpyScorer,
    Scorer,
    compare,
)
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.measure.similarity import Similarity, similarity

Stages: TypeAlias = Mapping[str, Figures] | Mapping[str, Similarity]


class Clock:
    """Seconds by the name of what took them."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


@dataclass(frozen=True)
class TokenCheck:
    """Whether the file's tokenizer gives the reference's ids; if not, where they first differ."""

    same: bool
    detail: str


@dataclass(frozen=True)
class Measured:
    """The figures of each stage; of a text model also each stage's scores.

    ``tokens`` is None where the file's own tokenizer was not asked.
    """

    stages: Stages
    scores: Mapping[str, Scores] = field(default_factory=dict, repr=False)
    tokens: TokenCheck | None = None


def measure_predictions(
    prepared: Prepared,
    candidate: Candidate,
    weights: Weights,
    engine: Engine,
    clock: Clock,
    progress: ProgressCallback | None,
    store: LogitsStore | None = None,
) -> Measured:
    """Compare what a text model and a file of it predict at each position.

    ``store`` keeps the reference's logits from one file to the next.
    """
    samples, tokens = prepared.samples, None
    models: list[Scorer] = [NumpyScorer(prepared.model.forward, samples, prepared.states, store)]
    if engine.dequantizes:
        forward = Reference(weights, finite_only=False)
        states = _dequantized_states(prepared, forward, clock, progress)
        models.append(NumpyScorer(forward, samples, states))
    if engine.runs_llamacpp:
        with clock.timed("load"):
            shipped = LlamaCppScorer(candidate.file.path, samples, engine.place, engine.threads)
        models.append(shipped)
        tokens = _check_tokens(prepared, shipped.model)
    try:
        with clock.timed("comparison"):
            report = counting(progress, "comparison", "sequences")
            parts = compare(models, list(engine.pairs.values()), samples, report)
    finally:
        if engine.runs_llamacpp:
            shipped.close()
    scores = dict(zip(engine.pairs, parts, strict=True))
    stages = {name: summarize(part, prepared.lengths) for name, part in scores.items()}
    return Measured(stages, scores, tokens)


def measure_vectors(
    prepared: Prepared,
    candidate: Candidate,
    weights: Weights,
    engine: Engine,
    clock: Clock,
    progress: ProgressCallback | None,
) -> Measured:
    """Compare the vectors that a retrieval model and a file of it give."""
    sides, tokens = [prepared.vectors], None
    if engine.dequantizes:
        forward = RetrievalReference(weights, Settings.from_gguf(candidate.file), finite_only=False)
        states = _dequantized_states(prepared, forward, clock, progress)
        sides.append(forward.vectors(states, prepared.lengths))
    if engine.runs_llamacpp:
        with (
            clock.timed("llama.cpp"),
            LlamaCppEmbedder(
                candidate.file.path, prepared.samples, engine.place, engine.threads
            ) as shipped,
        ):
            tokens = _check_tokens(prepared, shipped.model)
            sides.append(shipped.vectors(counting(progress, "llama.cpp", "sequences")))
    with clock.timed("comparison"):
        stages = {name: similarity(sides[a], sides[b]) for name, (a, b) in engine.pairs.items()}
    return Measured(stages, tokens=tokens)


def _dequantized_states(
    prepared: Prepared, model: Reference, clock: Clock, progress: ProgressCallback | None
) -> npt.NDArray[np.float32]:
    samples = prepared.samples
    with clock.timed("dequantized file"):
        return model.states(
            [sample.ids for sample in samples],
            [sample.positions for sample in samples],
            counting(progress, "dequantized file", "layers"),
        )


def _check_tokens(prepared: Prepared, model: llamacpp.Model) -> TokenCheck:
    for text in prepared.texts:
        for content, expected in text.encoded:
            ids = llamacpp_ids(model, content, bos=not text.is_chat)
            if not np.array_equal(ids, expected):
                where = _first_difference(ids, expected)
                return TokenCheck(False, f"{text.name} differs from token {where} on")
    return TokenCheck(True, prepared.model.tokenizer)


def _first_difference(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    shared = min(len(a), len(b))
    different = np.flatnonzero(a[:shared] != b[:shared])
    return int(different[0]) if len(different) else shared
