"""llama.cpp's own multimodal library, through llama-cpp-python: what a projector computes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

llama = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from llama_cpp import mtmd_cpp as mtmd  # noqa: E402

TEXT_CHUNK = 0  # MTMD_INPUT_CHUNK_TYPE_TEXT, tools/mtmd/mtmd.h


def image_embeddings(text: Path, projector: Path, pixels: np.ndarray) -> np.ndarray:
    """Embeddings of an image (height, width, 3; uint8) as the text model gets them, (n, size)."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    bitmap = mtmd.mtmd_bitmap_init(
        width, height, data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    )
    return _embeddings(text, projector, bitmap)


def audio_embeddings(text: Path, projector: Path, samples: np.ndarray) -> np.ndarray:
    """Embeddings of 16 kHz samples (float32) as the text model gets them, (n, size)."""
    data = np.ascontiguousarray(samples, np.float32)
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return _embeddings(text, projector, mtmd.mtmd_bitmap_init_from_audio(len(data), pointer))


def _embeddings(text: Path, projector: Path, bitmap: Any) -> np.ndarray:
    model = llama.llama_model_load_from_file(str(text).encode(), llama.llama_model_default_params())
    parameters = mtmd.mtmd_context_params_default()
    parameters.use_gpu, parameters.warmup, parameters.n_threads = False, False, 2
    context = mtmd.mtmd_init_from_file(str(projector).encode(), model, parameters)
    assert context, f"llama.cpp does not load {projector}"
    chunks = mtmd.mtmd_input_chunks_init()
    marker = mtmd.mtmd_default_marker()
    prompt = mtmd.mtmd_input_text(marker, len(marker), True, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(prompt), bitmaps, 1) == 0
    found = []
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == TEXT_CHUNK:
            continue
        assert mtmd.mtmd_encode_chunk(context, chunk) == 0
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama.llama_model_n_embd_inp(model))
        output = mtmd.mtmd_get_output_embd(context)
        found.append(np.ctypeslib.as_array(output, shape).copy())
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(context)
    llama.llama_model_free(model)
    return np.concatenate(found)
