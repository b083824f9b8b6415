"""Faults that are planted into a conversion of the example model, one at a time.

Most are made in a copy of the checkpoint, which is then converted as if nothing were wrong;
damage to a finished file is made in its bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lfm2gguf
from lfm2gguf.checkpoint import Checkpoint, TensorInfo
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.reference.weights import ReferenceConfig

Edit = Callable[["Editor"], None]


class Editor:
    """A copy of a checkpoint whose bf16 tensors can be replaced in place."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(source, folder))
        self.checkpoint = Checkpoint.open(self.folder)
        layers = self.checkpoint.config["layer_types"]
        self.n_layers = len(layers)
        self.conv = layers.index("conv")
        self.attention = layers.index("full_attention")
        self.middle = len(layers) // 2

    def info(self, name: str) -> TensorInfo:
        """A retrieval model's tensors are named without ``model.``."""
        tensors = self.checkpoint.tensors
        return tensors[name if name in tensors else name.removeprefix("model.")]

    def read(self, name: str) -> Any:
        return self.info(name).read()

    def write(self, name: str, values: Any) -> None:
        info = self.info(name)
        assert values.shape == info.shape
        assert info.dtype == "BF16"
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        with info.file.open("r+b") as file:
            file.seek(info.offset)
            file.write(rounded.tobytes())

    def set_config(self, **changes: Any) -> None:
        path = self.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def change(self, name: str, function: Callable[[Any], Any]) -> None:
        self.write(name, function(self.read(name)))

    def swap(self, a: str, b: str) -> None:
        first, second = self.read(a), self.read(b)
        self.write(a, second)
        self.write(b, first)


def layer(i: int, name: str) -> str:
    return f"model.layers.{i}.{name}.weight"


def permuted_rows(e: Editor) -> None:
    rng = np.random.default_rng(0)
    e.change(layer(e.middle, "feed_forward.w1"), rng.permutation)


def swapped_queries_and_keys(e: Editor) -> None:
    """The first query heads take the keys' weights, and the keys those of the queries."""
    q, k = (layer(e.attention, f"self_attn.{n}_proj") for n in "qk")
    queries, keys = e.read(q), e.read(k)
    e.write(k, queries[: len(keys)])
    e.write(q, np.concatenate([keys, queries[len(keys) :]]))
    e.swap(*(layer(e.attention, f"self_attn.{n}_layernorm") for n in "qk"))


def norm_left_out(e: Editor) -> None:
    e.change(layer(e.middle, "ffn_norm"), np.ones_like)


def reversed_kernel(e: Editor) -> None:
    e.change(layer(e.conv, "conv.conv"), lambda w: w[..., ::-1])


def wrong_rope_base(e: Editor) -> None:
    theta = ReferenceConfig.from_huggingface(e.checkpoint.config).rope_theta
    e.set_config(rope_theta=theta / 100, rope_parameters={"rope_theta": theta / 100})


def swapped_gate_and_up(e: Editor) -> None:
    e.swap(*(layer(e.middle, f"feed_forward.w{i}") for i in (1, 3)))


def shifted_embedding(e: Editor) -> None:
    e.change("model.embed_tokens.weight", lambda w: np.roll(w, 1, axis=0))


def missing_lora_delta(e: Editor) -> None:
    """What is left when an adapter (rank 8, a fifth of the weights' size) was not merged."""
    rng = np.random.default_rng(1)

    def without(w: Any) -> Any:
        delta = rng.standard_normal((len(w), 8)) @ rng.standard_normal((8, w.shape[1]))
        return w - delta * (0.2 * w.std() / delta.std())

    for i in range(e.n_layers):
        e.change(layer(i, "feed_forward.w1"), without)


def two_bit_layer(e: Editor) -> None:
    """One layer's feed-forward rounded to four levels for each 32 weights."""
    for i in (1, 2, 3):
        e.change(layer(e.middle, f"feed_forward.w{i}"), two_bits)


def two_bits(w: Any) -> Any:
    blocks = w.reshape(-1, 32)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    step = np.maximum((high - low) / 3, 1e-9)
    return (np.rint((blocks - low) / step) * step + low).reshape(w.shape)


IN_THE_CHECKPOINT: dict[str, Edit] = {
    "one tensor's rows permuted": permuted_rows,
    "q and k swapped": swapped_queries_and_keys,
    "a norm's weight left out": norm_left_out,
    "a conv kernel reversed": reversed_kernel,
    "the wrong rope base": wrong_rope_base,
    "gate and up swapped": swapped_gate_and_up,
    "token embedding shifted by one row": shifted_embedding,
    "a LoRA delta missing": missing_lora_delta,
    "one layer's feed-forward at two bits": two_bit_layer,
}


def convert_with(fault: Edit, source: Path, folder: Path, type: str) -> Path:
    """Convert a faulty copy of a checkpoint; returns the file."""
    editor = Editor(source, folder / "checkpoint")
    fault(editor)
    target = folder / f"faulty-{type}.gguf"
    lfm2gguf.convert(editor.folder, target, type, jobs=1)
    return target


# Where a scale lies in a block (ggml/src/ggml-common.h): bytes of d, then of the sub-scales.
SCALE_BYTES = {
    GGMLType.Q8_0: {"high byte of d": 1, "low byte of d": 0},
    GGMLType.Q4_0: {"high byte of d": 1, "low byte of d": 0},
    GGMLType.Q4_K: {"high byte of d": 1, "low byte of d": 0, "a sub-block's scale": 4},
    GGMLType.Q6_K: {"high byte of d": 209, "low byte of d": 208, "a sub-block's scale": 192},
}


def flip(path: Path, tensor: str, block: int, byte: int, bits: int = 0xFF) -> None:
    """Flip bits of one byte of one block of a tensor in a file."""
    info = GGUFFile.open(path).tensors[tensor]
    with path.open("r+b") as file:
        at = info.offset + block * info.type.type_size + byte
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ bits]))
