"""From two blocks of logits to a few numbers for each scored position, in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lfm2gguf.blas import one_thread

Doubles = npt.NDArray[np.float64]
ROW_BYTES = 4 << 20  # float64 logits of the rows that are one thread's piece of work


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

    # NumPy works without the interpreter lock; a BLAS with threads of its own would wait for them.
    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return Scores.join(list(pool.map(one, blocks)))


def _score_rows(
    reference: npt.NDArray[np.float32],
    candidate: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
) -> Scores:
    """Score row after row, in buffers that stay in a processor's cache.

    With x logits less the largest, S the sum of exp(x) and p = exp(x) / S, of both sides:
    KLD = sum(p_r * (x_r - x_c)) - ln(S_r) + ln(S_c). No logarithm of a probability is needed.
    """
    found = np.empty((len(fields(Scores)), len(targets)))
    x, e, off = np.empty((3, reference.shape[1]))
    with np.errstate(all="ignore"):
        for i, (r, c, target) in enumerate(zip(reference, candidate, targets, strict=True)):
            top_r, top_c = r.argmax(), c.argmax()
            np.subtract(r, r[top_r], out=off, dtype=np.float64)
            np.subtract(c, c[top_c], out=x, dtype=np.float64)
            at_r, at_c = off[target], x[target]
            np.exp(off, out=e)
            off -= x
            np.exp(x, out=x)
            total_r = e.sum()
            log_r, log_c = np.log(total_r), np.log(x.sum())
            kld = (e @ off) / total_r - log_r + log_c
            found[:, i] = (
                log_r - at_r,
                log_c - at_c,
                kld if np.isfinite(kld) and np.isfinite(at_c) else np.nan,
                top_r == top_c,
                (e @ e) / total_r**2,
            )
    return Scores(*found)
