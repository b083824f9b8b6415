"""The figures of a comparison: llama-perplexity's, with its definitions, in float64.

All means and variances are two-pass over the positions kept, not running sums. From
llama.cpp tools/perplexity/perplexity.cpp, ``kl_divergence``, commit 0c1e57098.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lfm2gguf.verification.measure.scores import Doubles, Scores

KLD_PERCENTILES = (0.0, 0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
MAX_LOG = 300.0  # a broken file's PPL may exceed the range of a double: exp(300) is 2e130
DELTA_P_PERCENTILES = (0.0, 0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    uncertainty: float


@dataclass(frozen=True)
class ChunkFigures:
    """The averages of one chunk, or one conversation, of the text."""

    tokens: int
    log_ratio: float
    kld: float
    same_top: float


@dataclass(frozen=True)
class Figures:
    """What a candidate measures against a reference.

    Probabilities and shares are between 0 and 1, log-ratios and KL divergences in nats.
    ``not_finite`` positions (NaN or infinite logits) are counted and left out of the rest.
    """

    tokens: int
    not_finite: int
    ppl_reference: Estimate
    ppl_candidate: Estimate
    ppl_ratio: Estimate  # paired
    ppl_difference: Estimate  # paired
    log_ppl_ratio: Estimate  # paired
    correlation: float  # of the two ln-probabilities of the token that follows
    kld: Estimate
    kld_percentiles: Mapping[str, float]
    delta_p: Estimate
    delta_p_rms: Estimate
    delta_p_percentiles: Mapping[str, float]
    same_top: Estimate
    chunks: tuple[ChunkFigures, ...]


def summarize(scores: Scores, lengths: Sequence[int]) -> Figures:
    """Compute all figures; ``lengths`` are the scored positions of each chunk."""
    kept = scores[scores.finite]
    reference, candidate = mean(kept.nll_reference), mean(kept.nll_candidate)
    log_ratio = mean(kept.nll_candidate - kept.nll_reference)
    covariance = _covariance(kept.nll_candidate, kept.nll_reference)
    ppl_reference, ppl_candidate = _exponential(reference), _exponential(candidate)
    square = mean(kept.delta_p**2)
    rms = math.sqrt(square.value)
    top = mean(kept.same_top)
    return Figures(
        tokens=len(scores),
        not_finite=len(scores) - len(kept),
        ppl_reference=ppl_reference,
        ppl_candidate=ppl_candidate,
        ppl_ratio=_exponential(log_ratio),
        ppl_difference=_difference(ppl_candidate, ppl_reference, covariance),
        log_ppl_ratio=log_ratio,
        correlation=_divide(covariance, reference.uncertainty * candidate.uncertainty),
        kld=mean(kept.kld),
        kld_percentiles=percentiles(kept.kld, KLD_PERCENTILES),
        delta_p=mean(kept.delta_p),
        delta_p_rms=Estimate(rms, _divide(square.uncertainty, 2 * rms)),
        delta_p_percentiles=percentiles(kept.delta_p, DELTA_P_PERCENTILES),
        same_top=top,
        chunks=tuple(_chunk(part) for part in split(scores, lengths)),
    )


def mean(values: Doubles) -> Estimate:
    """Return mean and standard error; NaN for no values, as is the error of one value."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan)
    average = float(values.mean())
    variance = float(np.square(values - average).mean())
    return Estimate(average, math.sqrt(variance / (n - 1)) if n > 1 else math.nan)


def percentiles(values: Doubles, wanted: Sequence[float]) -> dict[str, float]:
    """Return percentiles by linear interpolation, keyed by their number: ``{"99.9": ...}``."""
    found = np.percentile(values, wanted) if len(values) else [math.nan] * len(wanted)
    return {f"{q:g}": float(value) for q, value in zip(wanted, found, strict=True)}


def split(scores: Scores, lengths: Sequence[int]) -> list[Scores]:
    """Cut the positions into chunks of the given lengths."""
    ends = np.cumsum(lengths)
    return [scores[end - n : end] for end, n in zip(ends, lengths, strict=True)]


def _chunk(scores: Scores) -> ChunkFigures:
    kept = scores[scores.finite]
    return ChunkFigures(
        tokens=len(scores),
        log_ratio=mean(kept.nll_candidate - kept.nll_reference).value,
        kld=mean(kept.kld).value,
        same_top=mean(kept.same_top).value,
    )


def _exponential(log: Estimate) -> Estimate:
    value = math.exp(min(log.value, MAX_LOG))
    return Estimate(value, value * log.uncertainty)


def _difference(a: Estimate, b: Estimate, log_covariance: float) -> Estimate:
    """Return ``a - b`` of two perplexities whose logarithms' means have this covariance."""
    variance = a.uncertainty**2 + b.uncertainty**2 - 2 * a.value * b.value * log_covariance
    return Estimate(a.value - b.value, math.sqrt(max(0.0, variance)))


def _covariance(a: Doubles, b: Doubles) -> float:
    """Return the covariance of two means."""
    if len(a) < 2:
        return math.nan
    return float(((a - a.mean()) * (b - b.mean())).mean()) / (len(a) - 1)


def _divide(a: float, b: float) -> float:
    return a / b if b else 0.0
