"""Judging one file as ``verify`` does, without its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm2gguf.reference.retrieval import RetrievalReference
from lfm2gguf.verification import (
    Candidate,
    Limits,
    Prepared,
    SimilarityLimits,
    Verification,
    judge,
)


def judged(reference: Prepared, path: Path, **options: Any) -> Verification:
    """Judge a file by the limits of its type, on one thread and by NumPy unless told otherwise."""
    candidate = Candidate.open(path)
    retrieval = isinstance(reference.model.forward, RetrievalReference)
    limits = (SimilarityLimits if retrieval else Limits).choose(candidate.type)
    return judge(reference, candidate, limits, threads=1, **{"engine": "numpy", **options})


def failed(result: Verification) -> set[str]:
    """Return the names of the gates that did not pass."""
    return {gate.name for gate in result.failures}
