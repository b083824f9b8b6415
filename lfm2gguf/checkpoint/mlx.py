"""What mlx-lm writes, seen as transformers and peft write it (mlx_lm/models/lfm2_moe.py, tuner/).

Only names and shapes differ: no weight is changed. mlx-vlm's folders of vision models have the
same convolutions in names that transformers had, too (``sanitize`` of Blaizzy/mlx-vlm,
mlx_vlm/models/lfm2_vl/lfm2_vl.py, commit 045d5b77; lfm2gguf/lfm2/vision.py knows them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint.safetensors import TensorInfo
from lfm2gguf.errors import CheckpointError, UnsupportedError

ADAPTER = "adapters.safetensors"
MATRICES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
PROJECTION = re.compile(
    r"(?P<layer>.*\bfeed_forward)\.(?P<stack>switch_mlp\.)?(?P<matrix>gate|up|down)_proj\."
    r"(?P<end>weight|lora_a|lora_b|m)"
)
CONVOLUTION = ".conv.conv.weight"
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS, src/llama-hparams.h of llama.cpp
NOTE = "read as mlx-lm writes a model: {}"
FUSE = "fuse it (mlx_lm.fuse --model BASE --adapter-path {} --save-path OUTPUT --dequantize) and "
FUSE += "convert OUTPUT"


def as_in_transformers(
    tensors: Mapping[str, TensorInfo],
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Return tensors by transformers' names and shapes, and a note where they were mlx-lm's."""
    found: dict[str, TensorInfo] = {}
    what: dict[str, None] = {}
    for name, info in tensors.items():
        projection = PROJECTION.fullmatch(name)
        if projection and (not projection["stack"] or _is_stack(info.shape)):
            what["names and stacks of feed-forward matrices"] = None
            found.update(_projection(projection, info))
        elif name.endswith(CONVOLUTION) and _is_channels_last(info.shape):
            what["convolutions with their channels last"] = None
            n, taps, one = info.shape
            found[name] = replace(info, shape=(n, one, taps))  # the same bytes
        else:
            found[name] = info
    return found, (NOTE.format(", ".join(what)),) * bool(what)


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 1 < shape[1]


def _is_stack(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and 0 < shape[0] <= MAX_EXPERTS


def _projection(found: re.Match[str], info: TensorInfo) -> Iterator[tuple[str, TensorInfo]]:
    """Yield a matrix by its name in transformers; of a stack, each expert's."""
    matrix, end = MATRICES[f"{found['matrix']}_proj"], found["end"]
    if not found["stack"]:
        yield f"{found['layer']}.{matrix}.{end}", info
        return
    count, shape = info.shape[0], info.shape[1:]
    for i in range(count):
        offset = info.offset + i * (info.nbytes // count)
        yield (
            f"{found['layer']}.experts.{i}.{matrix}.{end}",
            replace(info, offset=offset, shape=shape),
        )


def is_adapter(config: Mapping[str, Any]) -> bool:
    """Say whether an adapter_config.json is mlx-lm's."""
    return "peft_type" not in config and ("fine_tune_type" in config or "lora_parameters" in config)


def adapter_config(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an adapter as peft would have it.

    A scale multiplies the product of the factors as it is. A tied embedding has its factors in
    both of its uses (``LoRAEmbedding.as_linear``).

    Raises:
        CheckpointError: a key is missing or not valid.
        UnsupportedError: all weights were trained, not factors.

    """
    kind, about = config.get("fine_tune_type", "lora"), config.get("lora_parameters")
    if kind not in ("lora", "dora"):
        raise UnsupportedError(
            f"{file}: fine_tune_type is {kind!r}, of which mlx-lm saves whole weights; "
            + FUSE.format(file.parent)
        )
    rank, scale = (about.get(k) if isinstance(about, dict) else None for k in ("rank", "scale"))
    if not isinstance(rank, int) or not isinstance(scale, int | float) or rank < 1:
        raise CheckpointError(
            f"{file}: lora_parameters is {about!r}, and needs a rank and a scale as mlx-lm writes "
            "them; correct it, or save the adapter again"
        )
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank,
        "use_dora": kind == "dora",
        "ensure_weight_tying": True,
        "base_model_name_or_path": config.get("model"),
    }


def adapter_tensors(file: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return factors by peft's names, transposed where peft has them so.

    Raises:
        UnsupportedError: a part that peft cannot have.

    """
    named, _ = as_in_transformers(tensors)
    found = {}
    for name, info in named.items():
        module, _, kind = name.rpartition(".")
        is_embedding = module.endswith("embed_tokens")
        if kind not in ("lora_a", "lora_b", "m") or (kind == "m" and is_embedding):
            raise UnsupportedError(
                f"{file}: {info.name!r} is not a part of an adapter that can be read from mlx-lm; "
                + FUSE.format(file.parent)
            )
        if kind == "m":
            found[f"{module}.lora_magnitude_vector"] = info
            continue
        flipped = ".experts." not in module
        shape = info.shape[::-1] if flipped else info.shape
        half = f"lora_{'embedding_' * is_embedding}{kind[-1].upper()}"
        found[f"{module}.{half}"] = replace(info, shape=shape, flipped=flipped)
    return found
