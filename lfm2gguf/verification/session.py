"""A verification: the reference computed once, each file compared with it, a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np

from lfm2gguf import llamacpp
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.executors import spread
from lfm2gguf.loadable import check_loadable
from lfm2gguf.members import is_retrieval
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import AdaptedWeights, Settings, Weights
from lfm2gguf.several import several
from lfm2gguf.storage import check_unchanged
from lfm2gguf.verification.limits import Limits, SimilarityLimits, TextLimits
from lfm2gguf.verification.material.models import Candidate, ReferenceModel, open_reference
from lfm2gguf.verification.material.preparation import Material, Prepared, prepare
from lfm2gguf.verification.measure import tensors
from lfm2gguf.verification.measure.deltas import TensorDelta, growth, tensor_deltas
from lfm2gguf.verification.measure.engine import SHIPPED, Engine
from lfm2gguf.verification.measure.measurement import (
    Clock,
    measure_predictions,
    measure_vectors,
)
from lfm2gguf.verification.measure.scorers import LogitsStore
from lfm2gguf.verification.verdict import gates
from lfm2gguf.verification.verdict.baseline import check_baseline, drift_gates
from lfm2gguf.verification.verdict.delta_gates import delta_gates
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification
from lfm2gguf.version import __version__

Source: TypeAlias = str | Path | ReferenceModel
Files: TypeAlias = list[str] | tuple[str | Path, ...] | Iterable[Path]  # and not a str

MATERIAL, LIMITS, ENGINE = Material(), Limits(), Engine()  # the defaults


@overload
def verify(
    files: str | Path,
    reference: Source,
    *,
    material: Material = ...,
    limits: Limits = ...,
    engine: Engine = ...,
    baseline: str | Path | None = ...,
    executor: Executor | None = ...,
    progress: ProgressCallback | None = ...,
) -> Verification: ...


@overload
def verify(
    files: Files,
    reference: Source,
    *,
    material: Material = ...,
    limits: Limits = ...,
    engine: Engine = ...,
    baseline: str | Path | None = ...,
    executor: Executor | None = ...,
    progress: ProgressCallback | None = ...,
) -> list[Verification]: ...


def verify(
    files: str | Path | Files,
    reference: Source,
    *,
    material: Material = MATERIAL,
    limits: Limits = LIMITS,
    engine: Engine = ENGINE,
    baseline: str | Path | None = None,
    executor: Executor | None = None,
    progress: ProgressCallback | None = None,
) -> Verification | list[Verification]:
    """Compare GGUF files with the model they were made from, and judge each.

    Args:
        files: one GGUF file, or several.
        reference: checkpoint folder, Hub id, or an F32, F16 or BF16 GGUF file; or what
            :func:`open_reference` gives, which also takes a revision and an adapter.
        material: the texts, and how much of them.
        limits: those that are not to be the file type's own.
        engine: what runs the files, and where.
        baseline: an earlier JSON report that figures must not drift from.
        executor: what judges each file in place of this process, such as a Dask cluster's
            ``Client.get_executor()``: its workers see the same files, and find the reference's
            states in the cache (``LFM2GGUF_CACHE``) where they see that, too.
        progress: called with a :class:`~lfm2gguf.Progress` as each stage goes on.

    Returns:
        A :class:`Verification`, or of several files a list of them.

    Raises:
        OptionError: no file is given.
        Lfm2ggufError: one of its subclasses, where a file could not be judged.

    """
    many: Sequence[str | Path] = several(files)
    if not many:
        raise OptionError("files: none is given; name a GGUF file at least")
    engine = engine.resolved()
    opened = [Candidate.open(path) for path in many]
    if baseline is not None:
        check_baseline(Path(baseline))
    with Session(reference, material, progress=progress, several=len(opened) > 1) as session:
        for file in opened:
            _limits(session.model, file, limits)  # before the reference is computed
        if executor is not None:
            results = _spread(session, opened, limits, engine, baseline, executor, progress)
        else:
            results = [
                session.judge(file, limits=limits, engine=engine, baseline=baseline)
                for file in opened
            ]
    return results[0] if isinstance(files, str | Path) else results


@dataclass(frozen=True)
class _Judging:
    """A file to be judged by itself, and all that it takes."""

    number: int
    file: Path
    reference: Path
    material: Material
    limits: Limits
    engine: Engine
    baseline: Path | None


def _spread(
    session: Session,
    files: Sequence[Candidate],
    limits: Limits,
    engine: Engine,
    baseline: str | Path | None,
    executor: Executor,
    progress: ProgressCallback | None,
) -> list[Verification]:
    model, material = session.model, session.material
    if isinstance(model.weights, AdaptedWeights):
        raise OptionError(
            f"{model.name}: an executor does not judge files with a merged adapter; leave it out"
        )
    if material.cache:
        session.prepared  # noqa: B018 - computed once, where the workers find it
    texts = tuple(Path(t) if Path(t).is_file() else t for t in material.names)
    material = replace(material, texts=texts, chat=material.chat and Path(material.chat))
    before = baseline and Path(baseline)
    pieces = [
        _Judging(i, file.file.path, model.path, material, limits, engine, before or None)
        for i, file in enumerate(files)
    ]
    count = counting(progress, "judging", "files")
    found: dict[int, Verification] = {}
    for done, (piece, result) in enumerate(spread(executor, judge_one, pieces, "verify"), 1):
        found[piece.number] = result
        if count:
            count(done, len(pieces))
    return [found[i] for i in range(len(pieces))]


def judge_one(piece: _Judging) -> Verification:
    """Judge a file on a worker, which opens the reference itself."""
    with Session(piece.reference, piece.material) as session:
        return session.judge(
            piece.file, limits=piece.limits, engine=piece.engine, baseline=piece.baseline
        )


class Session:
    """A reference whose states on the texts are computed once, for any number of files.

    It is a context manager. The reference is opened at once and computed when the first file is
    judged. Arguments as :func:`verify`. For ``several`` files the reference's logits are kept, too,
    in a nameless file of 2 GiB at most in the folder for caches.
    """

    def __init__(
        self,
        reference: Source,
        material: Material = MATERIAL,
        *,
        progress: ProgressCallback | None = None,
        several: bool = False,
    ) -> None:
        """Open the reference.

        Raises:
            Lfm2ggufError: one of its subclasses, where it cannot be opened.

        """
        self._owned = not isinstance(reference, ReferenceModel)
        self.model = (
            reference if isinstance(reference, ReferenceModel) else open_reference(reference)
        )
        self.material, self._progress = material, progress
        self._store = LogitsStore() if several else None

    @cached_property
    def prepared(self) -> Prepared:
        """The reference with its states on the texts, computed or found in the cache."""
        return prepare(self.model, self.material, self._progress)

    def judge(
        self,
        file: str | Path | Candidate,
        *,
        limits: Limits = LIMITS,
        engine: Engine = ENGINE,
        baseline: str | Path | None = None,
    ) -> Verification:
        """Compare one file with the reference, and judge it. Arguments as :func:`verify`.

        Raises:
            GGUFError: the file is damaged, or another model.
            TensorError: a file was written or removed meanwhile.
            OptionError: an option does not go with this model, or the baseline with this run.

        """
        candidate = file if isinstance(file, Candidate) else Candidate.open(file)
        found = _judge(
            self.prepared, candidate, limits, engine.resolved(), self._progress, self._store
        )
        if baseline is None:
            return found
        return replace(found, gates=(*found.gates, *drift_gates(Path(baseline), found)))

    def close(self) -> None:
        """Free what the session itself opened."""
        if self._store is not None:
            self._store.close()
        if self._owned:
            self.model.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _limits(
    model: ReferenceModel, candidate: Candidate, limits: Limits
) -> TextLimits | SimilarityLimits:
    if model.retrieval:
        return limits.of_similarity(candidate.type)
    return limits.of_text(candidate.type)


def _judge(
    prepared: Prepared,
    candidate: Candidate,
    limits: Limits,
    engine: Engine,
    progress: ProgressCallback | None,
    store: LogitsStore | None,
) -> Verification:
    allowed = _limits(prepared.model, candidate, limits)
    clock = Clock({"reference": prepared.seconds})
    weights = Weights.from_gguf(candidate.file)
    _require_same_model(prepared, candidate, weights)
    if engine.runs_llamacpp:
        check_loadable(candidate.file)
    found = [_settings_gate(prepared, candidate, weights)]
    with clock.timed("tensors"):
        differences = tensors.tensor_differences(
            candidate.file, weights, prepared.model.weights, progress
        )
    room = gates.room_of(candidate.file, differences)
    found.extend(gates.tensor_gate(differences, room))
    deltas: Sequence[TensorDelta] = ()
    if isinstance(prepared.model.weights, AdaptedWeights):
        with clock.timed("adapter"):
            deltas = tensor_deltas(candidate.file, weights, prepared.model.weights)
            grown = growth(candidate.file, weights, prepared.model.weights)
        found.extend(delta_gates(deltas, grown, room))
    run = prepared, candidate, weights, engine, clock, progress
    if prepared.model.retrieval:
        measured = measure_vectors(*run)
    else:
        measured = measure_predictions(*run, store)
    found.extend(gates.stage_gates(measured, allowed))
    check_unchanged((*prepared.model.stamps, *candidate.stamps))
    return Verification(
        candidate=candidate.name,
        type=candidate.type,
        size=candidate.size,
        weights=candidate.weights,
        reference=prepared.model.name,
        reference_digest=prepared.digest,
        tokenizer=prepared.model.tokenizer,
        texts=tuple(text.describe() for text in prepared.texts),
        ctx=prepared.ctx,
        engine=engine.name,
        device=engine.place,
        stages=measured.stages,
        tensors=tuple(differences),
        deltas=tuple(deltas),
        gates=tuple(found),
        reference_cached=prepared.cached,
        seconds=clock.seconds,
        versions=_versions(engine),
        scores=measured.scores.get(SHIPPED),
        positions=np.concatenate([sample.positions for sample in prepared.samples]),
    )


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
            f"{candidate.file.path}: cannot be judged against {prepared.model.name}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        )


def _versions(engine: Engine) -> dict[str, str]:
    versions = {"lfm2gguf": __version__, "numpy": np.__version__}
    return versions | (llamacpp.build_info() if engine.runs_llamacpp else {})
