"""Log-probabilities of a text's tokens by llama-cpp-python alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@functools.cache
def _opened(path: Path) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        str(path), logits_all=True, n_ctx=1024, n_threads=1, flash_attn=True, verbose=False
    )


def all_logprobs(path: Path, ids: Sequence[int]) -> Floats:
    """Return natural log-probabilities behind each token, ``(len(ids), vocabulary)``."""
    model = _opened(path)
    model.reset()
    model.eval(ids)
    logits = model.scores[: len(ids)].astype(np.float64)
    whole: Floats = logits - np.logaddexp.reduce(logits, 1)[:, None]
    return whole


def logprobs_of(path: Path, ids: Sequence[int]) -> Floats:
    """Return those of each token behind the ones before it, ``(len(ids) - 1,)``."""
    found: Floats = all_logprobs(path, ids)[np.arange(len(ids) - 1), ids[1:]]
    return found
