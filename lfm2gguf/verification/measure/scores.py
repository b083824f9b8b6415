"""From two blocks of logits to a few numbers for each scored position, in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
ROW_BYTES = 4 << 20  # float64 logits that one thread works on at once


@dataclass(frozen=True)
class Scores:
    """What is kept of each scored position; every field has shape (positions,), float64.

    Definitions are those of llama.cpp tools/perplexity/perplexity.cpp, commit 0c1e57098.
    """

    nll_reference: Doubles  # -ln p_reference(token that follows)
    nll_candidate: Doubles
    kld: Doubles  # sum over the vocabulary of p_reference * ln(p_reference / p_candidate)
    same_top: Doubles  # 1 where both give the largest logit to the same token, else 0
    collision: Doubles  # sum over the vocabulary of p_reference squared

    def __len__(self) -> int:
        return len(self.kld)

    @property
    def delta_p(self) -> Doubles:
        """Change of the probability of the token that follows, candidate minus reference."""
        change: Doubles = np.exp(-self.nll_candidate) - np.exp(-self.nll_reference)
        return change

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Where both models gave finite logits."""
        return np.isfinite(self.kld)

    def __getitem__(self, index: slice | npt.NDArray[np.bool_]) -> Scores:
        return Scores(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[Scores]) -> Scores:
        """Put the positions of several parts one after another."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def score(
    reference: npt.NDArray[np.float32],
    candidate: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
) -> Scores:
    """Compare logits (positions, vocabulary) given the token that follows each position.

    A position where a logit is NaN or infinite scores NaN.
    """
    rows = max(1, ROW_BYTES // (8 * reference.shape[1]))
    blocks = [slice(i, i + rows) for i in range(0, len(targets), rows)]

    def one(block: slice) -> Scores:
        return _score_rows(reference[block], candidate[block], targets[block])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy works without the interpreter lock
        return Scores.join(list(pool.map(one, blocks)))


def _score_rows(
    reference: npt.NDArray[np.float32],
    candidate: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
) -> Scores:
    with np.errstate(all="ignore"):
        r, p = _log_softmax(reference)
        c, _ = _log_softmax(candidate)
        at = np.arange(len(targets)), targets
        same_top = reference.argmax(axis=1) == candidate.argmax(axis=1)
        nll_reference, nll_candidate = -r[at], -c[at]
        r -= c
        kld = np.einsum("ij,ij->i", p, r)
        finite = np.isfinite(kld) & np.isfinite(nll_candidate)
        return Scores(
            nll_reference,
            nll_candidate,
            np.where(finite, kld, np.nan),
            same_top.astype(np.float64),
            np.einsum("ij,ij->i", p, p),
        )


def _log_softmax(logits: npt.NDArray[np.float32]) -> tuple[Doubles, Doubles]:
    """Return log-probabilities and probabilities, both (positions, vocabulary)."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    p = np.exp(x)
    total = p.sum(axis=1, keepdims=True)
    x -= np.log(total)
    p /= total
    return x, p
