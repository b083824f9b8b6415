"""The tokens among which one is drawn, as C takes them, and which of them can be."""

from __future__ import annotations

import ctypes
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.llamacpp.batch import Floats

Ids: TypeAlias = npt.NDArray[np.int64]

GROUP = 64  # logits of which the largest stands for all, to find how low top_k can reach


class CandidateArray:
    """A ``llama_token_data_array`` over a NumPy array."""

    def __init__(self, llama: Any, data: npt.NDArray[Any], ids: npt.NDArray[np.int32]) -> None:
        self.data, self._ids = data, ids
        self._id, self._logit = data["id"], data["logit"]
        self._struct = llama.llama_token_data_array()
        kind = dict(llama.llama_token_data_array._fields_)["data"]
        self._pointer = ctypes.cast(data.ctypes.data, kind)  # xtc moves the structure's own

    def fill(self, logits: Floats, ids: Ids | None = None) -> Any:
        """Write the candidates, all or those of ``ids``, and return the C structure."""
        size = len(self.data) if ids is None else len(ids)
        self._id[:size] = self._ids if ids is None else ids
        self._logit[:size] = logits if ids is None else logits[ids]
        array = self._struct
        array.data, array.size, array.selected, array.sorted = self._pointer, size, -1, False
        return array


def promising(logits: Floats, top_k: int, min_p: float) -> tuple[float, Ids | None]:
    """Return the largest logit, and the ids that ``top_k`` or ``min_p`` can leave; None: all.

    The largest is NaN where one logit is. The ids are in order, and perhaps a few more. A sampler
    chain is linear in its candidates, and would spend a millisecond on 65,536. After a decode
    nothing is in the processor's caches, the interpreter included: few calls count here.
    """
    most = float(logits[logits.argmax()])
    if top_k:
        groups = logits[: len(logits) // GROUP * GROUP].reshape(GROUP, -1).max(axis=0)
        if len(groups) <= top_k:
            return most, None
        floor = np.partition(groups, -top_k)[-top_k]  # k tokens reach it
    elif min_p:
        floor = most + math.log(min_p) - 0.001
    else:
        return most, None
    return most, (logits >= floor).nonzero()[0]
