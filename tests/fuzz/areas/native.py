"""Changed GGUF files to the Runner: what passes its checks reaches llama.cpp.

The changes keep to what llama.cpp reads: its keys, the vocabulary, tensors' shapes and types.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from tests.fuzz import ggufs
from tests.fuzz.areas import gguf
from tests.fuzz.ggufs import ARRAY, CODES, STRING, Array, File, any_typed, any_value, shown

OWN = (b"lfm2.", b"tokenizer.", b"general.architecture", b"general.type", b"general.sampling")
# What llama.cpp reads and our files lack: key and type.
MORE = {
    **dict.fromkeys((f"tokenizer.ggml.{name}_token_id" for name in (
        "eot", "eom", "fim_pre", "unknown", "seperator", "mask")), 4),
    **dict.fromkeys((f"tokenizer.ggml.{name}" for name in (
        "add_eos_token", "add_sep_token", "add_space_prefix")), 7),
    **dict.fromkeys(("tokenizer.ggml.scores", "tokenizer.ggml.precompiled_charsmap",
                     "lfm2.classifier.output_labels", "lfm2.rope.dimension_sections"), ARRAY),
    **dict.fromkeys((f"lfm2.{name}" for name in (
        "rope.dimension_count", "attention.key_length", "attention.value_length", "pooling_type",
        "expert_count", "expert_used_count", "embedding_length_out", "n_deepstack_layers",
        "rope.scaling.original_context_length", "attention.sliding_window",
        "ssm.conv_kernel")), 4),
    **dict.fromkeys(("lfm2.rope.scaling.factor", "lfm2.attention.max_alibi_bias",
                     "lfm2.attention.clamp_kqv", "general.sampling.temp", "general.sampling.min_p",
                     "general.sampling.penalty_repeat", "general.sampling.top_p"), 6),
    **dict.fromkeys(("lfm2.rope.scaling.type", "lfm2.tensor_data_layout"), STRING),
    "lfm2.attention.causal": 7,
    "tokenizer.ggml.token_type_count": 4,
    "general.sampling.top_k": 5,
}  # fmt: skip
TENSOR_TYPES = (0, 1, 2, 3, 6, 7, 8, 9, 12, 14, 16, 20, 24, 26, 28, 30, 34, 35, 39)

prepare = gguf.prepare


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a file."""
    raw = (base / f"{draw.choice(gguf.TYPES)}.gguf").read_bytes()
    file, labels = File.read(raw), []
    for _ in range(draw.choice([1, 1, 1, 2])):
        change = draw.choice(CHANGES)
        labels.append(f"{change.__name__.lstrip('_')} {change(file, draw) or ''}".strip())
    label, data = ggufs.written(labels, file, raw, draw)
    (folder / "f.gguf").write_bytes(data)
    return label


def check(base: Path, folder: Path) -> str:
    """Load it and let it say something."""
    from lfm2gguf import Runner

    os.environ.pop("LFM2GGUF_TRIAL", None)  # as a user has it: the first load in a child
    with Runner(folder / "f.gguf", context=256, parallel=1, threads=1, device="cpu") as lfm:
        lfm.chat("The cat", max_tokens=3, seed=1).text.encode()
        lfm.complete("The", max_tokens=2, temperature=0)
    return "ok"


def _own(file: File, draw: random.Random) -> list[Any]:
    return draw.choice([e for e in file.keys if isinstance(e[0], bytes) and e[0].startswith(OWN)])


def _value(file: File, draw: random.Random) -> str:
    entry = _own(file, draw)
    if entry[1] in CODES or entry[1] == STRING:
        entry[2] = any_value(entry[1], draw)
        if entry[1] in (4, 5) and draw.random() < 0.5:
            entry[2] = draw.randrange(700)
    if draw.random() < 0.15:
        entry[1], entry[2] = any_typed(draw)
    return shown(entry[0])


def _array(file: File, draw: random.Random) -> str:
    arrays = [e for e in file.keys if isinstance(e[2], Array) and e[2].items]
    if not arrays:
        return ""
    key, _, array = draw.choice(arrays)
    items, kind = array.items, draw.randrange(6)
    if kind == 0:
        del items[draw.randrange(len(items)) :]
    elif kind == 1:
        for _ in range(draw.choice([1, 5, 50])):
            items[draw.randrange(len(items))] = any_value(array.type, draw)
    elif kind == 2:
        items += [items[-1]] * draw.choice([1, 100])
    elif kind == 3:
        items[draw.randrange(len(items))] = draw.choice(items)
    elif kind == 4:
        draw.shuffle(items)
    else:
        items.clear()
    return shown(key)


def _away(file: File, draw: random.Random) -> str:
    entry = _own(file, draw)
    file.keys = [e for e in file.keys if e is not entry]
    return shown(entry[0])


def _more(file: File, draw: random.Random) -> str:
    key = draw.choice(list(MORE))
    type = MORE[key]
    value = any_value(type, draw)
    if type == 4 and draw.random() < 0.5:
        value = draw.randrange(330)
    file.put(key, type, value)
    return key


def _shape(file: File, draw: random.Random) -> None:
    t = draw.choice(file.tensors)
    t.dims = draw.choice([t.dims[::-1], [*t.dims, 1], [2 * d for d in t.dims], [1], t.dims[:1]])


def _tensor_type(file: File, draw: random.Random) -> None:
    draw.choice(file.tensors).type = draw.choice(TENSOR_TYPES)


def _vocabulary(file: File, draw: random.Random) -> None:
    rows = draw.choice([1, 160, 299, 301, 0x7FFFFFFF])
    for t in file.tensors:
        t.dims = [rows if d == 300 and draw.random() < 0.9 else d for d in t.dims]


def _structure(file: File, draw: random.Random) -> str:
    return ggufs.changed(file, draw)


def _weights(file: File, draw: random.Random) -> None:
    data = bytearray(file.data)
    for _ in range(draw.choice([10, 3000])):
        at = draw.randrange(len(data) - 4)
        data[at : at + 4] = draw.choice([b"\xff" * 4, b"\x80\x7f\x80\x7f", draw.randbytes(4)])
    file.data = bytes(data)


CHANGES = (
    _value, _value, _value, _array, _array, _away, _more, _more, _more, _shape, _tensor_type,
    _vocabulary, _structure, _weights,
)  # fmt: skip
