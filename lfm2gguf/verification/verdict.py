"""A verification: the reference computed once, each file compared with it, a verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf import llamacpp
from lfm2gguf.errors import GGUFError, MissingDependencyError, OptionError
from lfm2gguf.lfm2.reference import Reference
from lfm2gguf.lfm2.reference_weights import Weights
from lfm2gguf.verification import gates, tensors
from lfm2gguf.verification.baseline import drift_gates
from lfm2gguf.verification.figures import Figures, summarize
from lfm2gguf.verification.gates import Gate
from lfm2gguf.verification.limits import RUNTIME_LIMITS, Limits
from lfm2gguf.verification.models import Candidate, llamacpp_ids
from lfm2gguf.verification.preparation import (
    DEFAULT_CHUNKS,
    DEFAULT_CTX,
    Prepared,
    Progress,
    prepare,
    stage,
)
from lfm2gguf.verification.scorers import (
    LlamaCppScorer,
    NumpyScorer,
    Scorer,
    compare,
    llamacpp_available,
)
from lfm2gguf.verification.scores import Scores
from lfm2gguf.verification.tensors import TensorDifference
from lfm2gguf.version import __version__

SHIPPED = "shipped"  # reference against what is shipped; the other two are --three-way's
QUANTIZATION = "quantization"  # reference against the dequantized file
RUNTIME = "runtime"  # dequantized file against llama.cpp


@dataclass(frozen=True)
class Verification:
    """What was measured on one file, and the verdict.

    ``figures`` compares the file as it is shipped with the reference; a three-way
    verification adds the stages ``quantization`` and ``runtime``.
    """

    candidate: str
    type: str
    size: int  # bytes
    reference: str
    reference_digest: str
    tokenizer: str
    texts: tuple[Mapping[str, Any], ...]
    ctx: int
    engine: str
    device: str
    stages: Mapping[str, Figures]
    tensors: tuple[TensorDifference, ...]
    gates: tuple[Gate, ...]
    reference_cached: bool
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    scores: Scores = field(repr=False, compare=False)
    positions: npt.NDArray[np.intp] = field(repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def figures(self) -> Figures:
        """The figures of the file as it is shipped."""
        return self.stages[SHIPPED]

    @property
    def failures(self) -> tuple[Gate, ...]:
        """The gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def culprit(self) -> str:
        """In a three-way verification, which of the two failed; else empty."""
        failed = [stage for stage in (QUANTIZATION, RUNTIME)
                  if any(gate.name.endswith(f"({stage})") for gate in self.failures)]  # fmt: skip
        return " and ".join(failed)


def verify(
    candidate: str | Path,
    reference: str | Path,
    *,
    revision: str | None = None,
    texts: Sequence[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CTX,
    max_ppl_increase: float | None = None,
    max_kld: float | None = None,
    min_top1: float | None = None,
    baseline: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    three_way: bool = False,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Verification:
    """Compare a GGUF file with the model it was made from, and judge it.

    Args:
        candidate: the GGUF file.
        reference: checkpoint folder, Hub id, or an F32, F16 or BF16 GGUF file.
        revision: branch, tag or commit of the Hub repository.
        texts: UTF-8 files, or ``wikitext-2``; by default a text from Python's own
            documentation, which is a smoke test.
        chat: a file of conversations as JSON lines, scored on the assistant's tokens.
        chunks: how many chunks of each text (None: all).
        ctx: tokens of a chunk; the second half of each is scored.
        max_ppl_increase: limit of PPL ratio - 1; by default, as the next two, by file type.
        max_kld: limit of the mean KL divergence, in nats.
        min_top1: least share of positions at which both prefer the same token.
        baseline: an earlier JSON report that figures must not drift from.
        engine: ``llama.cpp``, ``numpy`` (the dequantized file), or ``auto``.
        device: where llama.cpp runs: ``cpu``, a backend or a device's name.
        threads: llama.cpp's threads; by default the physical cores.
        three_way: also score the dequantized file, to tell quantization from runtime.
        use_cache: keep the reference's hidden states for the next run.
        progress: called with a stage's name, and how much of how much is done.

    Raises:
        Lfm2ggufError: one of its subclasses, where the file could not be judged.

    """
    found = verify_all(
        [candidate], reference, revision=revision, texts=texts, chat=chat, chunks=chunks, ctx=ctx,
        max_ppl_increase=max_ppl_increase, max_kld=max_kld, min_top1=min_top1, baseline=baseline,
        engine=engine, device=device, threads=threads, three_way=three_way, use_cache=use_cache,
        progress=progress,
    )  # fmt: skip
    return found[0]


def verify_all(
    candidates: Sequence[str | Path],
    reference: str | Path,
    *,
    revision: str | None = None,
    texts: Sequence[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CTX,
    max_ppl_increase: float | None = None,
    max_kld: float | None = None,
    min_top1: float | None = None,
    baseline: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    three_way: bool = False,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> list[Verification]:
    """Verify several files of one model: the reference is computed once. As :func:`verify`."""
    chosen = choose_engine(engine, three_way=three_way)
    opened = [Candidate.open(path) for path in candidates]
    asked = (max_ppl_increase, max_kld, min_top1)
    limits = [Limits.choose(file.type, *asked) for file in opened]
    prepared = prepare(
        reference, texts, revision=revision, chat=chat, chunks=chunks, ctx=ctx,
        use_cache=use_cache, progress=progress,
    )  # fmt: skip
    return [
        judge(
            prepared, file, limit, baseline=baseline, engine=chosen, device=device,
            threads=threads, three_way=three_way, progress=progress,
        )
        for file, limit in zip(opened, limits, strict=True)
    ]  # fmt: skip


def choose_engine(engine: str, *, three_way: bool = False) -> str:
    """Resolve ``auto``. Raises OptionError, or MissingDependencyError without llama.cpp."""
    if engine not in ("auto", "llama.cpp", "numpy"):
        raise OptionError(f"engine {engine!r} is not one of auto, llama.cpp, numpy")
    available = llamacpp_available()
    if (engine == "llama.cpp" or three_way) and not available:
        raise MissingDependencyError(
            'llama-cpp-python is not installed: pip install "lfm2gguf[run]", or use --engine numpy'
        )
    if three_way and engine == "numpy":
        raise OptionError("three-way runs both engines; leave --engine away")
    return "llama.cpp" if available and engine != "numpy" else "numpy"


def judge(
    prepared: Prepared,
    candidate: Candidate,
    limits: Limits,
    *,
    baseline: str | Path | None = None,
    engine: str = "llama.cpp",
    device: str = "cpu",
    threads: int | None = None,
    three_way: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Compare one file with a prepared reference. Raises GGUFError if it is another model."""
    clock = _Clock({"reference": prepared.seconds})
    weights = Weights.from_gguf(candidate.file)
    _require_same_model(prepared, candidate, weights)
    found = [gates.metadata_gate(weights.config, prepared.model.weights.config)]
    with clock.timed("tensors"):
        differences = tensors.tensor_differences(candidate.file, weights, prepared.model.weights)
    found.extend(gates.tensor_gate(differences))
    models: list[Scorer] = [_states_scorer(prepared, prepared.reference, prepared.states)]
    if three_way or engine == "numpy":
        with clock.timed("dequantized file"):
            models.append(_numpy_scorer(prepared, weights, progress))
    if engine == "llama.cpp":
        with clock.timed("load"):
            shipped = LlamaCppScorer(candidate.file.path, prepared.samples, device, threads)
        models.append(shipped)
        found.append(_tokenizer_gate(prepared, shipped.model))
    pairs = {SHIPPED: (0, len(models) - 1)}
    if three_way:
        pairs |= {QUANTIZATION: (0, 1), RUNTIME: (1, 2)}
    try:
        with clock.timed("comparison"):
            report = stage(progress, "comparison")
            parts = compare(models, list(pairs.values()), prepared.samples, report)
    finally:
        if engine == "llama.cpp":
            shipped.close()
    scores = dict(zip(pairs, parts, strict=True))
    stages = {name: summarize(part, prepared.lengths) for name, part in scores.items()}
    for name, part in scores.items():
        allowed = RUNTIME_LIMITS if name == RUNTIME else limits
        shown = "" if name == SHIPPED else name
        found.extend(gates.figure_gates(stages[name], part, allowed, shown))
    result = Verification(
        candidate=candidate.name,
        type=candidate.type,
        size=candidate.size,
        reference=prepared.model.name,
        reference_digest=prepared.digest,
        tokenizer=prepared.model.tokenizer,
        texts=tuple(material.describe() for material in prepared.materials),
        ctx=prepared.ctx,
        engine=engine,
        device=device if engine == "llama.cpp" else "cpu",
        stages=stages,
        tensors=tuple(differences),
        gates=tuple(found),
        reference_cached=prepared.cached,
        seconds=clock.seconds,
        versions=_versions(engine),
        scores=scores[SHIPPED],
        positions=np.concatenate([sample.positions for sample in prepared.samples]),
    )
    if baseline is None:
        return result
    drift = drift_gates(Path(baseline), result)
    return replace(result, gates=(*result.gates, *drift))


def _require_same_model(prepared: Prepared, candidate: Candidate, weights: Weights) -> None:
    problems = tensors.unmatched(candidate.file, weights, prepared.model.weights)
    if problems:
        raise GGUFError(
            f"{candidate.file.path} cannot be judged against {prepared.model.name}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        )


def _states_scorer(
    prepared: Prepared, model: Reference, states: npt.NDArray[np.float32]
) -> NumpyScorer:
    return NumpyScorer(model, prepared.samples, states)


def _numpy_scorer(prepared: Prepared, weights: Weights, progress: Progress | None) -> NumpyScorer:
    model = Reference(weights, finite_only=False)
    samples = prepared.samples
    states = model.states(
        [sample.ids for sample in samples],
        [sample.positions for sample in samples],
        stage(progress, "dequantized file"),
    )
    return _states_scorer(prepared, model, states)


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


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _versions(engine: str) -> dict[str, str]:
    versions = {"lfm2gguf": __version__, "numpy": np.__version__}
    return versions | (llamacpp.build_info() if engine == "llama.cpp" else {})
