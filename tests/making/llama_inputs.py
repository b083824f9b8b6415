"""What llama.cpp's own graph feeds into each weight, read by its evaluation callback.

The statistic of llama-imatrix (tools/imatrix/imatrix.cpp, ``collect_imatrix``, llama.cpp
0c1e57098) from the library that llama-cpp-python installs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MUL_MAT, MUL_MAT_ID = 29, 30  # enum ggml_op, ggml/include/ggml.h


class Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml/include/ggml.h, llama.cpp 0c1e57098."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


def sums_of_squares(
    path: Path, chunks: Sequence[Sequence[int]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By weight: sums (matrices, columns) in float64 and counts (matrices,), chunk by chunk."""
    import llama_cpp

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def seen(tensor: Any, ask: bool, _: Any) -> bool:
        t = ctypes.cast(tensor, ctypes.POINTER(Tensor)).contents
        if t.op not in (MUL_MAT, MUL_MAT_ID):
            return False
        weight, x = t.src[0].contents, t.src[1].contents
        name = weight.name.decode()
        if not name.startswith("blk.") or x.type != 0:
            return False
        if not ask:
            experts = _array(t.src[2].contents, np.int32) if t.op == MUL_MAT_ID else None
            _add(found, name, _array(x, np.float32), experts, weight.ne[2])
        return True

    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path}"
    wanted = llama_cpp.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = len(chunks[0])
    wanted.n_threads = wanted.n_threads_batch = 1
    kind = dict(llama_cpp.llama_context_params._fields_)["cb_eval"]
    wanted.cb_eval = callback = kind(seen)  # held until the context is freed
    ctx = llama_cpp.llama_init_from_model(model, wanted)
    try:
        for ids in chunks:
            _decode(llama_cpp, ctx, ids)
    finally:
        llama_cpp.llama_free(ctx)
        llama_cpp.llama_model_free(model)
        del callback
    return found


def _decode(api: Any, ctx: Any, ids: Sequence[int]) -> None:
    api.llama_memory_clear(api.llama_get_memory(ctx), True)
    batch = api.llama_batch_init(len(ids), 0, 1)
    for i, id in enumerate(ids):
        batch.token[i], batch.pos[i], batch.logits[i] = id, i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    batch.n_tokens = len(ids)
    try:
        assert api.llama_decode(ctx, batch) == 0
    finally:
        api.llama_batch_free(batch)


def _array(t: Tensor, dtype: Any) -> np.ndarray:
    """Copy a tensor as an array, dimensions in NumPy's order."""
    size = t.nb[3] * (t.ne[3] - 1) + t.nb[2] * (t.ne[2] - 1) + t.nb[1] * t.ne[1]
    raw = np.frombuffer((ctypes.c_char * size).from_address(t.data), np.uint8)
    shape, strides = list(t.ne)[::-1], list(t.nb)[::-1]
    return np.ndarray(shape, dtype, raw, strides=strides).copy()


def _add(
    found: dict[str, tuple[np.ndarray, np.ndarray]],
    name: str,
    x: np.ndarray,
    experts: np.ndarray | None,
    matrices: int,
) -> None:
    columns = x.shape[-1]
    sums, counts = found.setdefault(
        name, (np.zeros((matrices, columns)), np.zeros(matrices, np.int64))
    )
    if experts is None:
        rows = x.reshape(-1, columns).astype(np.float64)
        sums[0] += (rows**2).sum(axis=0)
        counts[0] += len(rows)
        return
    chosen = experts[0, 0]  # (tokens, used)
    rows = np.broadcast_to(x[0], (len(chosen), chosen.shape[1], columns)).astype(np.float64)
    for e in range(matrices):
        mine = rows[chosen == e]
        sums[e] += (mine**2).sum(axis=0)
        counts[e] += len(mine)
