"""Embeddings by llama.cpp, through llama-cpp-python's low-level bindings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

QUIET = None


@contextmanager
def context(path: Path, n_tokens: int) -> Iterator[tuple[Any, Any, Any]]:
    """A context that returns embeddings, pooled as the file says."""
    import llama_cpp

    global QUIET
    QUIET = QUIET or llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(QUIET, None)
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path}"
    wanted = llama_cpp.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = n_tokens
    wanted.embeddings = True
    wanted.type_k = wanted.type_v = llama_cpp.GGML_TYPE_F32  # as exact as transformers
    wanted.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    wanted.n_threads = wanted.n_threads_batch = 1
    ctx = llama_cpp.llama_init_from_model(model, wanted)
    try:
        yield llama_cpp, model, ctx
    finally:
        llama_cpp.llama_free(ctx)
        llama_cpp.llama_model_free(model)


def logits(path: Path, ids: Sequence[int], adapter: Path | None = None) -> np.ndarray:
    """llama.cpp's logits after each token of one sequence, on one thread, (tokens, vocabulary)."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    options: dict[str, Any] = {"lora_path": str(adapter) if adapter else None, "n_ctx": 64}
    llama = llama_cpp.Llama(str(path), logits_all=True, verbose=False, n_threads=1, **options)
    llama.eval(list(ids))
    result = np.array(llama.scores[: len(ids)])
    llama.close()
    return result


def embed(path: Path, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Vectors of each sequence, (1, width) where the file pools and (tokens, width) if not."""
    with context(path, 512) as (api, model, ctx):
        width = api.llama_model_n_embd_out(model)
        return [_one(api, ctx, ids, width) for ids in sequences]


def _one(api: Any, ctx: Any, ids: Sequence[int], width: int) -> np.ndarray:
    api.llama_memory_clear(api.llama_get_memory(ctx), True)
    batch = api.llama_batch_init(len(ids), 0, 1)
    for i, id in enumerate(ids):
        batch.token[i], batch.pos[i], batch.logits[i] = id, i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    batch.n_tokens = len(ids)
    try:
        assert api.llama_decode(ctx, batch) == 0
        pooled = api.llama_pooling_type(ctx) != api.LLAMA_POOLING_TYPE_NONE
        rows = (
            [api.llama_get_embeddings_seq(ctx, 0)]
            if pooled
            else [api.llama_get_embeddings_ith(ctx, i) for i in range(len(ids))]
        )
        return np.array([np.ctypeslib.as_array(row, (width,)) for row in rows])
    finally:
        api.llama_batch_free(batch)
