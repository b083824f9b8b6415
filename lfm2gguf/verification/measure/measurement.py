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
from lfm2gguf.verification.measure.figures import Figures, summarize
from lfm2gguf.verification.measure.scorers import (
    LlamaCppEmbedder,
    LlamaCppScorer,
    NumpyScorer,
    Scorer,
    compare,
)
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.measure.similarity import Similarity, similarity
from lfm2gguf.verification.verdict import gates
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.limits import (
    RUNTIME_LIMITS,
    RUNTIME_SIMILARITY_LIMITS,
    Limits,
    SimilarityLimits,
)

SHIPPED = "shipped"  # reference against what is shipped; the other two are --three-way's
QUANTIZATION = "quantization"  # reference against the dequantized file
RUNTIME = "runtime"  # dequantized file against llama.cpp

Stages: TypeAlias = Mapping[str, Figures] | Mapping[str, Similarity]


@dataclass(frozen=True)
class Engine:
    """What runs the file: llama.cpp, NumPy (which dequantizes it), or both in a three-way."""

    name: str
    device: str
    threads: int | None
    three_way: bool

    @property
    def runs_llamacpp(self) -> bool:
        """Whether llama.cpp runs the file."""
        return self.name == "llama.cpp"

    @property
    def dequantizes(self) -> bool:
        """Whether NumPy runs it."""
        return self.three_way or not self.runs_llamacpp

    @property
    def pairs(self) -> dict[str, tuple[int, int]]:
        """What is compared in each stage; 0 is the reference, then what runs the file."""
        if self.three_way:
            return {SHIPPED: (0, 2), QUANTIZATION: (0, 1), RUNTIME: (1, 2)}
        return {SHIPPED: (0, 1)}


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
class Measured:
    """The figures of each stage, and their gates; of a text model the scores as shipped."""

    stages: Stages
    gates: tuple[Gate, ...]
    scores: Scores | None = field(default=None, repr=False)


def measure_predictions(
    prepared: Prepared,
    candidate: Candidate,
    weights: Weights,
    limits: Limits,
    engine: Engine,
    clock: Clock,
    progress: ProgressCallback | None,
) -> Measured:
    """Compare what a text model and a file of it say of each next token."""
    samples, found = prepared.samples, list[Gate]()
    models: list[Scorer] = [NumpyScorer(prepared.model.forward, samples, prepared.states)]
    if engine.dequantizes:
        forward = Reference(weights, finite_only=False)
        states = _dequantized_states(prepared, forward, clock, progress)
        models.append(NumpyScorer(forward, samples, states))
    if engine.runs_llamacpp:
        with clock.timed("load"):
            shipped = LlamaCppScorer(candidate.file.path, samples, engine.device, engine.threads)
        models.append(shipped)
        found.append(_tokenizer_gate(prepared, shipped.model))
    try:
        with clock.timed("comparison"):
            report = counting(progress, "comparison", "sequences")
            parts = compare(models, list(engine.pairs.values()), samples, report)
    finally:
        if engine.runs_llamacpp:
            shipped.close()
    scores = dict(zip(engine.pairs, parts, strict=True))
    stages = {name: summarize(part, prepared.lengths) for name, part in scores.items()}
    for name, part in scores.items():
        allowed, suffix = (RUNTIME_LIMITS if name == RUNTIME else limits), _suffix(name)
        found.extend(gates.figure_gates(stages[name], part, allowed, suffix))
    return Measured(stages, tuple(found), scores[SHIPPED])


def measure_vectors(
    prepared: Prepared,
    candidate: Candidate,
    weights: Weights,
    limits: SimilarityLimits,
    engine: Engine,
    clock: Clock,
    progress: ProgressCallback | None,
) -> Measured:
    """Compare the vectors that a retrieval model and a file of it give."""
    sides, found = [prepared.vectors], list[Gate]()
    if engine.dequantizes:
        forward = RetrievalReference(weights, Settings.from_gguf(candidate.file), finite_only=False)
        states = _dequantized_states(prepared, forward, clock, progress)
        sides.append(forward.vectors(states, prepared.lengths))
    if engine.runs_llamacpp:
        with (
            clock.timed("llama.cpp"),
            LlamaCppEmbedder(
                candidate.file.path, prepared.samples, engine.device, engine.threads
            ) as shipped,
        ):
            found.append(_tokenizer_gate(prepared, shipped.model))
            sides.append(shipped.vectors(counting(progress, "llama.cpp", "sequences")))
    with clock.timed("comparison"):
        stages = {name: similarity(sides[a], sides[b]) for name, (a, b) in engine.pairs.items()}
    for name, figures in stages.items():
        allowed = RUNTIME_SIMILARITY_LIMITS if name == RUNTIME else limits
        found.extend(gates.similarity_gates(figures, allowed, _suffix(name)))
    return Measured(stages, tuple(found))


def _dequantized_states(
    prepared: Prepared, model: Reference, clock: Clock, progress: ProgressCallback | None
) -> npt.NDArray[np.float32]:
    samples = prepared.samples
    with clock.timed("dequantized file"):
        return model.states(
            [sample.ids for sample in samples],
            [sample.positions for sample in samples],
            counting(progress, "dequantized file", "sequences"),
        )


def _suffix(stage: str) -> str:
    return "" if stage == SHIPPED else stage


def _tokenizer_gate(prepared: Prepared, model: llamacpp.Model) -> Gate:
    """The file's tokenizer must give the ids that the reference's own gives."""
    for material in prepared.materials:
        for text, expected in material.encoded:
            ids = llamacpp_ids(model, text, bos=not material.is_chat)
            if not np.array_equal(ids, expected):
                where = _first_difference(ids, expected)
                detail = f"{material.name} differs from token {where} on"
                return Gate("same tokens as the tokenizer", 1, 0, detail=detail)
    return Gate("same tokens as the tokenizer", 0, 0, detail=prepared.model.tokenizer)


def _first_difference(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    shared = min(len(a), len(b))
    different = np.flatnonzero(a[:shared] != b[:shared])
    return int(different[0]) if len(different) else shared
