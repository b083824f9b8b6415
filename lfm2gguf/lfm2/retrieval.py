"""The retrieval models: LFM2-ColBERT, LFM2.5-ColBERT and LFM2.5-Embedding.

The text model without a head, its tensors named without ``model.``, in the layout of Sentence
Transformers: modules.json lists a pooling (Embedding) or a dense layer (ColBERT) beside it.
What becomes of them: conversion/lfm2.py and conversion/base.py (``_try_set_pooling_type``) of
llama.cpp, commit 0c1e57098. The prefixes of queries and documents have no key in a GGUF.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lfm2gguf.checkpoint import Checkpoint, read_json, read_json_list
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2 import dense
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.plan import PlannedTensor, Source

ARCHITECTURE = dense.ARCHITECTURE
# The converter writes it as it meets the dense layer, before it writes anything else.
LEADING = (f"{ARCHITECTURE}.embedding_length_out",)
BIDIRECTIONAL = "Lfm2BidirectionalModel"
DENSE = "1_Dense"
PROJECTION = f"{DENSE}/linear.weight"  # named after the folder, see checkpoint/folder.py
# Spellings of Sentence Transformers: the old, a flag each, and the new, one name. The id is
# that of ``enum llama_pooling_type``, include/llama.h.
POOLING_FLAGS = {"mean_tokens": 1, "cls_token": 2, "lasttoken": 3}
POOLING_MODES = {"mean": 1, "cls": 2, "lasttoken": 3}


def tensors(config: Lfm2Config, checkpoint: Checkpoint) -> Iterator[PlannedTensor]:
    """Every tensor of the file, with its source."""
    for tensor in dense.tensors(replace(config, tied=True), checkpoint):
        sources = (replace(s, name=s.name.removeprefix("model.")) for s in tensor.sources)
        yield replace(tensor, sources=tuple(sources))
    if PROJECTION in checkpoint.tensors:
        shape = (_projected(checkpoint), config.hidden_size)
        yield PlannedTensor("dense_2.weight", shape, (Source(PROJECTION, shape),))


def left_out(config: Lfm2Config, checkpoint: Checkpoint) -> dict[str, str]:
    """Nothing: without a head, every tensor is used."""
    return {}


def metadata(config: Lfm2Config, checkpoint: Checkpoint) -> Metadata:
    """The keys of the architecture, in the order in which llama.cpp's converter writes them.

    Raises:
        CheckpointError: modules.json or what it names is missing or damaged.
        UnsupportedError: a pooling or a dense layer that llama.cpp does not compute.

    """
    modules = _modules(checkpoint)
    keys = dense.metadata(config, checkpoint)
    if PROJECTION in checkpoint.tensors:
        _check_dense(read_json(checkpoint.path / DENSE / "config.json"))
        keys[LEADING[0]] = Value(ValueType.UINT32, _projected(checkpoint))
    elif "Dense" in modules:
        raise CheckpointError(
            f"{checkpoint.path}: modules.json names a dense layer in {modules['Dense']!r}, and "
            f"{DENSE}/model.safetensors is missing; download the whole folder"
        )
    if checkpoint.config["architectures"][0] == BIDIRECTIONAL:
        if config.conv_cache % 2 == 0:
            raise UnsupportedError(
                f"{checkpoint.path}: conv_L_cache is {config.conv_cache}; llama.cpp centres a "
                "convolution on its token, which takes an odd number"
            )
        keys[f"{ARCHITECTURE}.attention.causal"] = Value(ValueType.BOOL, False)
    if "Pooling" in modules:
        pooling = _pooling(checkpoint, modules["Pooling"])
        keys[f"{ARCHITECTURE}.pooling_type"] = Value(ValueType.UINT32, pooling)
    return keys


def _projected(checkpoint: Checkpoint) -> int:
    shape = checkpoint.tensors[PROJECTION].shape
    return shape[0] if shape else 0


def _modules(checkpoint: Checkpoint) -> dict[str, str]:
    """The folder of each module by the last part of its type, such as ``Pooling``."""
    path = checkpoint.path / "modules.json"
    modules = read_json_list(path)
    for module in modules:
        about = module if isinstance(module, dict) else {}
        if not all(isinstance(about.get(key), str) for key in ("type", "path")):
            raise CheckpointError(f"{path}: {module!r} has no type and path; download it again")
    return {module["type"].rpartition(".")[2]: module["path"] for module in modules}


def notes(checkpoint: Checkpoint) -> list[str]:
    """What a user may not expect: vectors of tokens, where one of the text is usual."""
    if PROJECTION in checkpoint.tensors or "Pooling" in _modules(checkpoint):
        return []
    return [
        "no pooling is written, as no modules.json names one: llama.cpp gives a vector for each "
        "token. If the model is meant to give one for each text, download its whole folder, or "
        "say how to pool when running it (llama-embedding --pooling)"
    ]


def _pooling(checkpoint: Checkpoint, folder: str) -> int:
    path = checkpoint.path / folder / "config.json"
    config = read_json(path, needed_for="the pooling that modules.json names")
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = flags or [str(config.get("pooling_mode"))]
    known = {f"pooling_mode_{flag}": id for flag, id in POOLING_FLAGS.items()} | POOLING_MODES
    if len(names) != 1 or names[0] not in known:
        raise UnsupportedError(
            f"{path}: pooling by {' and '.join(names)}; llama.cpp pools by the mean, the first "
            "or the last token. Use the model in Sentence Transformers"
        )
    return known[names[0]]


def _check_dense(config: Mapping[str, Any]) -> None:
    """llama.cpp multiplies by the matrix and nothing else (src/llama-graph.cpp)."""
    activation = str(config.get("activation_function", "Identity"))
    if not activation.endswith("Identity"):
        raise UnsupportedError(
            f"{DENSE}/config.json: the dense layer is followed by {activation}; llama.cpp has no "
            "place for it. Use the model in Sentence Transformers"
        )
