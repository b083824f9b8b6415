"""The figures of a retrieval model: how near its vectors are, and whether they rank alike.

Cosines compare vector with vector. They can be near 1 and say little: where all texts lie in
one direction, noise that turns every ranking hardly moves a cosine. So each side also ranks
the documents for each query by itself, and the rankings are compared.

A score is ColBERT's (Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832): for each
vector of the query its largest cosine with one of the document, summed. Of models that pool,
with one vector a text, that is the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.verification.measure.figures import Estimate, mean, percentiles
from lfm2gguf.verification.measure.scores import Doubles

Vectors: TypeAlias = npt.NDArray[np.float32]

BEST = 10
COSINE_PERCENTILES = (0.0, 0.1, 1.0, 5.0, 10.0, 50.0)


@dataclass(frozen=True)
class Similarity:
    """What the vectors of a candidate measure against a reference's.

    ``not_finite`` vectors are counted, and leave nothing of the rest but NaN. So does another
    width, or another number of vectors, of the cosines; rankings are compared nevertheless.
    """

    queries: int
    documents: int
    vectors: int
    not_finite: int
    cosine: Estimate  # over texts, of the mean over a text's vectors
    cosine_percentiles: Mapping[str, float]  # over vectors
    rank_correlation: Estimate  # Spearman's, over queries
    same_best: Estimate  # share of queries
    best_overlap: Estimate  # share of the ten best documents that both have
    cosines: tuple[float, ...]  # of each text
    rank_correlations: tuple[float, ...]  # of each query


def similarity(reference: Sequence[Vectors], candidate: Sequence[Vectors]) -> Similarity:
    """Compare the vectors (n, width) of each text; queries and documents alternate."""
    cosines = [_cosines(a, b) for a, b in zip(reference, candidate, strict=True)]
    texts = np.array([part.mean() for part in cosines])
    ours, theirs = (_scores(x[::2], x[1::2]) for x in (reference, candidate))
    pairs = list(zip(ours, theirs, strict=True))
    correlations = np.array([spearman(a, b) for a, b in pairs])
    return Similarity(
        queries=len(pairs),
        documents=len(reference) - len(pairs),
        vectors=sum(map(len, candidate)),
        not_finite=sum(int((~np.isfinite(x).all(axis=1)).sum()) for x in candidate),
        cosine=mean(texts),
        cosine_percentiles=percentiles(np.concatenate(cosines), COSINE_PERCENTILES),
        rank_correlation=mean(correlations),
        same_best=mean(np.array([_overlap(a, b, 1) for a, b in pairs])),
        best_overlap=mean(np.array([_overlap(a, b, BEST) for a, b in pairs])),
        cosines=tuple(map(float, texts)),
        rank_correlations=tuple(map(float, correlations)),
    )


def spearman(a: Doubles, b: Doubles) -> float:
    """Return the correlation of the ranks of two lists of scores.

    NaN where a score is not finite, or where one list has but one value.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(scores: Doubles) -> Doubles:
    """Return the place of each score; scores that are equal share the mean of their places."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Doubles = (ends - (counts + 1) / 2)[which]
    return ranks


def _overlap(a: Doubles, b: Doubles, count: int) -> float:
    """Return the share of the ``count`` best documents by ``a`` that are among those by ``b``."""
    if not np.isfinite(b).all():
        return math.nan
    count = min(count, len(a))
    best = [set(np.argsort(-scores, kind="stable")[:count].tolist()) for scores in (a, b)]
    return len(best[0] & best[1]) / count


def _cosines(a: Vectors, b: Vectors) -> Doubles:
    if a.shape != b.shape:
        return np.full(len(a), np.nan)
    found: Doubles = np.einsum("ij,ij->i", _units(a), _units(b))
    return found


def _units(x: Vectors) -> Doubles:
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        units: Doubles = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return units


def _scores(queries: Sequence[Vectors], documents: Sequence[Vectors]) -> Doubles:
    """Return the score of each query (rows) for each document (columns)."""
    starts = np.cumsum([0, *(len(x) for x in documents[:-1])])
    all_documents = _units(np.concatenate(documents)).T
    rows = [
        np.maximum.reduceat(_units(query) @ all_documents, starts, axis=1).sum(axis=0)
        for query in queries
    ]
    return np.array(rows)
