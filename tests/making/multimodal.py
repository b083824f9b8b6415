"""Small vision and audio checkpoints, named and shaped as the published ones are.

The names are those that transformers' Lfm2VlForConditionalGeneration saves (before version 5
and since), and those of the modules of liquid-audio 1.3.0 (LFM2AudioModel and
LFM2AudioDetokenizer). Nothing here shares code with the converter.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.make_checkpoint import shapes
from tests.making.checkpoints import (
    TEMPLATE,
    config,
    save,
    tokenizer,
    write_json,
    write_raw_safetensors,
)
from tests.quants.samples import normal

Shapes = dict[str, tuple[int, ...]]

TEXT = config(architectures=["Lfm2ForCausalLM"], hidden_size=64, intermediate_size=96)
VISION: dict[str, Any] = {
    "model_type": "siglip2_vision_model",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-6,
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 3,
    "num_patches": 16,
    "patch_size": 16,
    "vision_use_head": False,
}
PROCESSOR = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.125], "tile_size": 512}


def vl_config(**changes: Any) -> dict[str, Any]:
    """A config of LFM2-VL with changes."""
    return {
        "architectures": ["Lfm2VlForConditionalGeneration"],
        "model_type": "lfm2_vl",
        "downsample_factor": 2,
        "image_token_id": 3,
        "projector_bias": True,
        "projector_hidden_act": "gelu",
        "projector_hidden_size": 160,
        "projector_use_layernorm": False,
        "tie_word_embeddings": True,
        "text_config": TEXT,
        "vision_config": VISION,
    } | changes


@dataclass(frozen=True)
class Names:
    """How the tensors of the three parts are called."""

    text: str
    head: str
    tower: str
    connector: str


PUBLISHED = Names(
    "model.language_model.", "lm_head",
    "model.vision_tower.vision_model.", "model.multi_modal_projector.",
)  # fmt: skip
OLDER = Names(
    "language_model.model.", "language_model.lm_head",
    "vision_tower.vision_model.", "multi_modal_projector.",
)  # fmt: skip
# sanitize of mlx_vlm/models/lfm2_vl/lfm2_vl.py, Blaizzy/mlx-vlm, commit 045d5b77.
MLX_VLM = Names(
    "language_model.model.", "language_model.lm_head", "vision_tower.", "multi_modal_projector."
)
SINCE_TRANSFORMERS_5 = Names(
    "model.language_model.", "lm_head", "model.vision_tower.", "model.multi_modal_projector."
)


def vl_shapes(config: Mapping[str, Any], names: Names) -> Shapes:
    """Every tensor of an LFM2-VL checkpoint."""
    vision = config["vision_config"]
    hidden, ffn = vision["hidden_size"], vision["intermediate_size"]
    inner, text = config["projector_hidden_size"], config["text_config"]["hidden_size"]
    unshuffled = hidden * config["downsample_factor"] ** 2
    out: Shapes = {}
    for name, shape in shapes(config["text_config"]).items():
        renamed = name.replace("model.", names.text, 1)
        out[renamed.replace("lm_head", names.head) if name.startswith("lm_head") else renamed] = (
            shape
        )
    out |= _linear(f"{names.connector}linear_1", inner, unshuffled)
    out |= _linear(f"{names.connector}linear_2", text, inner)
    if config["projector_use_layernorm"]:
        out |= _norm(f"{names.connector}layer_norm", unshuffled)
    out |= _linear(f"{names.tower}embeddings.patch_embedding", hidden, 3 * 16 * 16)
    out[f"{names.tower}embeddings.position_embedding.weight"] = (vision["num_patches"], hidden)
    for i in range(vision["num_hidden_layers"]):
        layer = f"{names.tower}encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            out |= _norm(layer + norm, hidden)
        for linear in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out |= _linear(f"{layer}self_attn.{linear}", hidden, hidden)
        out |= _linear(f"{layer}mlp.fc1", ffn, hidden) | _linear(f"{layer}mlp.fc2", hidden, ffn)
    return out | _norm(f"{names.tower}post_layernorm", hidden)


def _linear(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, size: int) -> Shapes:
    return _linear(name, size)


@dataclass(frozen=True)
class Case:
    """A checkpoint to be made."""

    config: Mapping[str, Any]
    shapes: Shapes
    dtype: str = "BF16"
    shards: int = 1
    beside: Mapping[str, Any] = field(default_factory=dict)  # JSON files of these names
    parts: tuple[str, ...] = ("text", "projector")
    integers: Shapes = field(default_factory=dict)
    by_fan_in: bool = False  # random weights that keep the size of what goes through them


WIDE_TEXT = config(architectures=["Lfm2ForCausalLM"], hidden_size=256, intermediate_size=512)
UNTIED = config(architectures=["Lfm2ForCausalLM"], tie_word_embeddings=False)
VL = vl_config(text_config=WIDE_TEXT)
VL_NORM = vl_config(
    text_config=UNTIED,
    vision_config=VISION | {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4},
    projector_use_layernorm=True,
    vision_feature_layer=-2,
    tie_word_embeddings=False,
)
VL_CASES = {
    "LFM2-VL-450M": Case(
        VL, vl_shapes(VL, PUBLISHED), beside={"preprocessor_config.json": PROCESSOR}
    ),
    "LFM2.5-VL-Tune-v2-float32": Case(
        VL_NORM,
        vl_shapes(VL_NORM, OLDER),
        dtype="F32",
        shards=3,
        beside={
            "preprocessor_config.json": PROCESSOR | {"image_mean": [0, 0, 0]},
            "processor_config.json": {"image_processor": PROCESSOR},
        },
    ),
}
AUDIO: dict[str, Any] = {
    "architectures": ["Lfm2AudioForConditionalGeneration"],
    "codebooks": 2,
    "tie_audio_embeddings": False,
    "preprocessor": {"sample_rate": 16000, "features": 20},
    "encoder": {
        "feat_in": 20,
        "feat_out": -1,
        "n_layers": 7,  # with fewer, llama.cpp's converter does not know pre_encode.conv.6
        "d_model": 64,
        "n_heads": 4,
        "ff_expansion_factor": 2,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 24,
        "self_attention_model": "rel_pos",
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
        "xscaling": False,
        "untie_biases": True,
    },
    "lfm": TEXT,
    "depthformer": {"layers": 1, "dim": 32, "tie": True},
}
DETOKENIZER = config(
    architectures=["Lfm25AudioTokenizer"],
    num_hidden_layers=3,
    layer_types=["conv", "sliding_attention", "conv"],
    hidden_size=256,
    intermediate_size=512,
    sliding_window=30,
    output_size=42,
)


def audio_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of an LFM2-Audio checkpoint but those of :func:`audio_integers`."""
    encoder, text = config["encoder"], config["lfm"]["hidden_size"]
    size, heads = encoder["d_model"], encoder["n_heads"]
    channels, wide = encoder["subsampling_conv_channels"], size * encoder["ff_expansion_factor"]
    bins = encoder["feat_in"]
    for _ in range(3):
        bins = (bins + 1) // 2
    dim, codes = config["depthformer"]["dim"], 2049
    out = {name.replace("model.", "lfm.", 1): s for name, s in shapes(config["lfm"]).items()}
    for i in (0, 2, 5):
        out |= _linear(f"conformer.pre_encode.conv.{i}", channels, 1, 3, 3)
    for i in (3, 6):
        out |= _linear(f"conformer.pre_encode.conv.{i}", channels, channels, 1, 1)
    out |= _linear("conformer.pre_encode.out", size, channels * bins)
    for i in range(encoder["n_layers"]):
        layer = f"conformer.layers.{i}."
        for part in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            out |= _norm(f"{layer}norm_{part}", size)
        for part in ("feed_forward1", "feed_forward2"):
            out |= _linear(f"{layer}{part}.linear1", wide, size)
            out |= _linear(f"{layer}{part}.linear2", size, wide)
        for part in ("q", "k", "v", "out"):
            out |= _linear(f"{layer}self_attn.linear_{part}", size, size)
        out[f"{layer}self_attn.linear_pos.weight"] = (size, size)
        out[f"{layer}self_attn.pos_bias_u"] = (heads, size // heads)
        out[f"{layer}self_attn.pos_bias_v"] = (heads, size // heads)
        out |= _linear(f"{layer}conv.pointwise_conv1", 2 * size, size, 1)
        out |= _linear(f"{layer}conv.depthwise_conv", size, 1, encoder["conv_kernel_size"])
        out |= _linear(f"{layer}conv.pointwise_conv2", size, size, 1)
        out |= _norm(f"{layer}conv.batch_norm", size)
        out[f"{layer}conv.batch_norm.running_mean"] = (size,)
        out[f"{layer}conv.batch_norm.running_var"] = (size,)
    out |= _norm("audio_adapter.model.0", size) | _linear("audio_adapter.model.1", text, size)
    out |= _linear("audio_adapter.model.3", text, text)
    out["audio_embedding.embedding.weight"] = (config["codebooks"] * codes, text)
    out["audio_embedding.embedding_norm.weight"] = (text,)
    out["audio_embedding.to_logits.weight"] = (config["codebooks"] * codes, text)
    out["audio_loss_weights"] = (config["codebooks"],)
    out |= _linear("depth_linear", dim * config["codebooks"], text)
    out["depthformer.layers.0.operator_norm.weight"] = (dim,)
    out["depth_embeddings.0.embedding.weight"] = (codes, dim)
    return out


def audio_integers(config: Mapping[str, Any]) -> Shapes:
    """The buffers that are int64."""
    layers = range(config["encoder"]["n_layers"])
    name = "conformer.layers.{}.conv.batch_norm.num_batches_tracked"
    return {"codebook_offsets": (config["codebooks"],)} | {name.format(i): () for i in layers}


def detokenizer_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of an audio detokenizer."""
    out = {name.replace("model.", "lfm.", 1): s for name, s in shapes(dict(config)).items()}
    out["emb.emb.weight"] = (8 * 2048, config["hidden_size"])
    out["istft.window"] = (1280,)
    return out | _linear("lin", config["output_size"], config["hidden_size"])


CASES = VL_CASES | {
    "LFM2.5-Audio-1.5B": Case(AUDIO, audio_shapes(AUDIO), integers=audio_integers(AUDIO)),
    "audio_detokenizer": Case(
        DETOKENIZER, detokenizer_shapes(DETOKENIZER), dtype="F32", parts=("text",)
    ),
}


def make_multimodal(case: Case, folder: Path) -> Path:
    """Write a whole checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", case.config)
    tensors = {
        name: _values(i, name, shape, _scale(shape) if case.by_fan_in else 0.05)
        for i, (name, shape) in enumerate(case.shapes.items())
    }
    save(folder, tensors, case.dtype, case.shards)
    if case.integers:
        _save_integers(folder / "model-integers.safetensors", case.integers)
    for name, content in (tokenizer() | dict(case.beside)).items():
        write_json(folder / name, content)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def _save_integers(path: Path, shapes: Shapes) -> None:
    header, data = {}, b""
    for name, shape in shapes.items():
        begin, data = len(data), data + bytes(8 * int(np.prod(shape)))
        header[name] = {"dtype": "I64", "shape": shape, "data_offsets": [begin, len(data)]}
    write_raw_safetensors(path, json.dumps(header).encode(), data)


def _scale(shape: tuple[int, ...]) -> float:
    return 0.1 if len(shape) < 2 else math.sqrt(2 / math.prod(shape[1:]))


def _values(seed: int, name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    values = scale * normal(seed, shape)
    about_one = "norm" in name and not name.endswith(("bias", "mean"))
    return (values + 1 if about_one else values).astype(np.float32)


# To be run: with float32 weights, so that two implementations can be compared closely.
IMAGE_CONFIG = vl_config(projector_use_layernorm=True)
IMAGE_CASE = Case(
    IMAGE_CONFIG,
    vl_shapes(IMAGE_CONFIG, SINCE_TRANSFORMERS_5),
    dtype="F32",
    beside={"processor_config.json": {"image_processor": PROCESSOR}},
)


BEFORE, AFTER = [1, 70, 71, 72], [90, 91, 92, 93, 94]  # tokens around the image


def image() -> np.ndarray:
    """A picture of 320 x 256 (height x width), uint8: 80 image tokens, no tiles."""
    y, x = np.mgrid[0:320, 0:256]
    waves = [np.sin(x / a + c) * np.cos(y / b) for a, b, c in ((9, 31, 0), (40, 17, 1), (23, 5, 2))]
    return (127.5 * (1 + np.stack(waves, -1))).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of RGB pixels (PNG specification, third edition, section 5)."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def published(partial: Mapping[str, Any]) -> dict[str, Any]:
    """A whole config from the keys that are known of a published one."""
    outer = ("downsample_factor", "projector_hidden_act", "projector_hidden_size",
             "projector_bias", "projector_use_layernorm")  # fmt: skip
    text = dict(partial["text"])
    text["full_attn_idxs"] = text.pop("full_attention_layers", None)
    return vl_config(
        text_config=text,
        vision_config=partial["vision"],
        **{key: partial[key] for key in outer},
    )
