"""A verification: the reference computed once, each file compared with it, a verdict."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt

from lfm2gguf import llamacpp
from lfm2gguf.errors import GGUFError, MissingDependencyError, OptionError
from lfm2gguf.members import is_retrieval
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.reference import AdaptedWeights, Settings, Weights
from lfm2gguf.verification.material.models import Candidate, open_reference
from lfm2gguf.verification.material.preparation import (
    DEFAULT_CHUNKS,
    DEFAULT_CTX,
    Prepared,
    prepare,
)
from lfm2gguf.verification.measure import tensors
from lfm2gguf.verification.measure.deltas import TensorDelta, delta_gates, growth, tensor_deltas
from lfm2gguf.verification.measure.figures import Figures
from lfm2gguf.verification.measure.measurement import (
    QUANTIZATION,
    RUNTIME,
    SHIPPED,
    Clock,
    Engine,
    Measured,
    Stages,
    measure_predictions,
    measure_vectors,
)
from lfm2gguf.verification.measure.scorers import llamacpp_available
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.measure.similarity import Similarity
from lfm2gguf.verification.measure.tensors import TensorDifference
from lfm2gguf.verification.verdict import gates
from lfm2gguf.verification.verdict.baseline import drift_gates
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.limits import Limits, SimilarityLimits
from lfm2gguf.version import __version__

P = ParamSpec("P")


@dataclass(frozen=True)
class Verification:
    """What was measured on one file, and the verdict.

    ``figures`` (of a retrieval model ``similarity``) compares the file as it is shipped with
    the reference; a three-way verification adds the stages ``quantization`` and ``runtime``.
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
    stages: Stages
    tensors: tuple[TensorDifference, ...]
    deltas: tuple[TensorDelta, ...]  # what each tensor carries of an adapter
    gates: tuple[Gate, ...]
    reference_cached: bool
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    scores: Scores | None = field(repr=False, compare=False)  # None of a retrieval model
    positions: npt.NDArray[np.intp] = field(repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def figures(self) -> Figures:
        """The figures of the file as it is shipped. Raises OptionError for a retrieval model."""
        found = self.stages[SHIPPED]
        if not isinstance(found, Figures):
            raise OptionError(f"{self.reference} is for retrieval: see `similarity`")
        return found

    @property
    def similarity(self) -> Similarity:
        """A retrieval model's figures, as shipped. Raises OptionError for a text model."""
        found = self.stages[SHIPPED]
        if not isinstance(found, Similarity):
            raise OptionError(f"{self.reference} predicts text: see `figures`")
        return found

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


def verify_all(
    candidates: Sequence[str | Path],
    reference: str | Path,
    *,
    revision: str | None = None,
    lora: str | Path | None = None,
    texts: Sequence[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CTX,
    max_ppl_increase: float | None = None,
    max_kld: float | None = None,
    min_top1: float | None = None,
    min_cosine: float | None = None,
    min_rank: float | None = None,
    min_overlap: float | None = None,
    baseline: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    three_way: bool = False,
    use_cache: bool = True,
    progress: ProgressCallback | None = None,
) -> list[Verification]:
    """Compare GGUF files with the model they were made from, and judge each.

    Args:
        candidates: the GGUF files, or for :func:`verify` the one.
        reference: checkpoint folder, Hub id, or an F32, F16 or BF16 GGUF file.
        revision: branch, tag or commit of the Hub repository.
        lora: an adapter's folder, or its Hub id, that was merged into the files: they must be the
            checkpoint with it.
        texts: UTF-8 files, or ``wikitext-2``; by default a text from Python's own
            documentation, which is a smoke test.
        chat: a file of conversations as JSON lines, scored on the assistant's tokens.
        chunks: how many chunks of each text (None: all).
        ctx: tokens of a chunk; the second half of each is scored. Of a retrieval model, chunks
            are cut into queries and documents.
        max_ppl_increase: limit of PPL ratio - 1; by default, as the next ones, by file type.
        max_kld: limit of the mean KL divergence, in nats.
        min_top1: least share of positions at which both prefer the same token.
        min_cosine: of a retrieval model, the least mean cosine of its vectors.
        min_rank: likewise, of the rank correlation of documents.
        min_overlap: likewise, of the share of the ten best documents that both have.
        baseline: an earlier JSON report that figures must not drift from.
        engine: ``llama.cpp``, ``numpy`` (the dequantized file), or ``auto``.
        device: where llama.cpp runs: ``cpu``, a backend or a device's name.
        threads: llama.cpp's threads; by default the physical cores.
        three_way: also score the dequantized file, to tell quantization from runtime.
        use_cache: keep the reference's hidden states for the next run.
        progress: called with a :class:`~lfm2gguf.Progress` as each stage goes on.

    Raises:
        Lfm2ggufError: one of its subclasses, where a file could not be judged.

    """
    chosen = choose_engine(engine, three_way=three_way)
    opened = [Candidate.open(path) for path in candidates]
    model = open_reference(reference, revision, lora)
    of_text = {"max_ppl_increase": max_ppl_increase, "max_kld": max_kld, "min_top1": min_top1}
    of_vectors = {"min_cosine": min_cosine, "min_rank": min_rank, "min_overlap": min_overlap}
    limits = [
        _limits(file.type, of_text, of_vectors, retrieval=model.retrieval is not None)
        for file in opened
    ]
    prepared = prepare(
        model, texts, chat=chat, chunks=chunks, ctx=ctx, use_cache=use_cache, progress=progress
    )
    return [
        judge(
            prepared, file, limit, baseline=baseline, engine=chosen, device=device,
            threads=threads, three_way=three_way, progress=progress,
        )
        for file, limit in zip(opened, limits, strict=True)
    ]  # fmt: skip


def _of_one(
    many: Callable[Concatenate[Sequence[str | Path], P], list[Verification]],
) -> Callable[Concatenate[str | Path, P], Verification]:
    """The same function for one file: the arguments are written down once."""

    def one(candidate: str | Path, /, *args: P.args, **options: P.kwargs) -> Verification:
        return many([candidate], *args, **options)[0]

    signature = inspect.signature(many)
    _, *rest = signature.parameters.values()
    first = inspect.Parameter("candidate", inspect.Parameter.POSITIONAL_ONLY)
    shown = signature.replace(parameters=[first, *rest], return_annotation="Verification")
    one.__signature__ = shown  # type: ignore[attr-defined]
    one.__name__ = one.__qualname__ = "verify"
    one.__doc__ = many.__doc__
    return one


verify = _of_one(verify_all)


def _limits(
    type: str,
    of_text: Mapping[str, float | None],
    of_vectors: Mapping[str, float | None],
    *,
    retrieval: bool,
) -> Limits | SimilarityLimits:
    """The limits of a file. Raises OptionError for those of the other kind of model."""
    misplaced = [
        name for name, x in (of_text if retrieval else of_vectors).items() if x is not None
    ]
    if misplaced:
        kind = "retrieval model, whose vectors are compared" if retrieval else "model of text"
        raise OptionError(f"--{misplaced[0].replace('_', '-')} is no limit of a {kind}")
    if retrieval:
        return SimilarityLimits.choose(type, **of_vectors)
    return Limits.choose(type, **of_text)


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
    limits: Limits | SimilarityLimits,
    *,
    baseline: str | Path | None = None,
    engine: str = "llama.cpp",
    device: str = "cpu",
    threads: int | None = None,
    three_way: bool = False,
    progress: ProgressCallback | None = None,
) -> Verification:
    """Compare one file with a prepared reference. Raises GGUFError if it is another model."""
    clock = Clock({"reference": prepared.seconds})
    weights = Weights.from_gguf(candidate.file)
    _require_same_model(prepared, candidate, weights)
    found = [_settings_gate(prepared, candidate, weights)]
    with clock.timed("tensors"):
        differences = tensors.tensor_differences(candidate.file, weights, prepared.model.weights)
    found.extend(gates.tensor_gate(differences))
    deltas: Sequence[TensorDelta] = ()
    if isinstance(prepared.model.weights, AdaptedWeights):
        with clock.timed("adapter"):
            deltas, carried = _judge_adapter(candidate, weights, prepared.model.weights)
        found.extend(carried)
    run = Engine(engine, device, threads, three_way)
    given = (prepared, candidate, weights)
    measured: Measured = (
        measure_vectors(*given, limits, run, clock, progress)
        if isinstance(limits, SimilarityLimits)
        else measure_predictions(*given, limits, run, clock, progress)
    )
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
        stages=measured.stages,
        tensors=tuple(differences),
        deltas=tuple(deltas),
        gates=(*found, *measured.gates),
        reference_cached=prepared.cached,
        seconds=clock.seconds,
        versions=_versions(engine),
        scores=measured.scores,
        positions=np.concatenate([sample.positions for sample in prepared.samples]),
    )
    if baseline is None:
        return result
    drift = drift_gates(Path(baseline), result)
    return replace(result, gates=(*result.gates, *drift))


def _judge_adapter(
    candidate: Candidate, weights: Weights, reference: AdaptedWeights
) -> tuple[list[TensorDelta], list[Gate]]:
    found = tensor_deltas(candidate.file, weights, reference)
    return found, list(delta_gates(found, growth(candidate.file, weights, reference)))


def _settings_gate(prepared: Prepared, candidate: Candidate, weights: Weights) -> Gate:
    config = (weights.config, prepared.model.weights.config, gates.CONFIG)
    if not (expected := prepared.model.retrieval):
        return gates.metadata_gate(config)
    retrieval = (Settings.from_gguf(candidate.file), expected, gates.RETRIEVAL)
    return gates.metadata_gate(config, retrieval)


def _require_same_model(prepared: Prepared, candidate: Candidate, weights: Weights) -> None:
    problems = tensors.unmatched(candidate.file, weights, prepared.model.weights)
    if not prepared.model.retrieval and is_retrieval(candidate.file, candidate.file.tensors):
        problems.insert(0, "it is a retrieval model, and the reference is not")
    if problems:
        raise GGUFError(
            f"{candidate.file.path} cannot be judged against {prepared.model.name}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        )


def _versions(engine: str) -> dict[str, str]:
    versions = {"lfm2gguf": __version__, "numpy": np.__version__}
    return versions | (llamacpp.build_info() if engine == "llama.cpp" else {})
