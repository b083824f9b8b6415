"""Files in every type, with and without importance, and with types of single tensors."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf import GGUFFile
from lfm2gguf.conversion import Recipe
from lfm2gguf.ggml import FileType
from lfm2gguf.imatrix import Entry, ImportanceMatrix
from tests.making.checkpoints import CASES, MOE_CASES, Case
from tests.quants.samples import uniform

DENSE = "LFM2-rows-of-256"
MODELS: dict[str, Case] = {
    DENSE: CASES[DENSE],
    "untied": CASES["LFM2.5-1.2B-Tune-v2-float32"],
    "12 layers, rows of 32": CASES["LFM2-12-layers-rows-of-32"],
    "rows of 16": CASES["LFM2-rows-of-16"],
    "eight experts": next(iter(MOE_CASES.values())),
}
# Options of a recipe, on the dense model and the untied one.
OPTIONS: dict[str, dict[str, Any]] = {
    "pure": {"pure": True},
    "output kept": {"leave_output_tensor": True},
    "output IQ4_XS": {"output_tensor_type": "IQ4_XS"},
    "embedding Q3_K": {"token_embedding_type": "Q3_K"},
    "some tensors": {"tensor_type": ("ffn_down=Q8_0", r"blk\.\d+\.attn_[kq]=iq4_nl", "ffn_=Q6_K")},
}
# What every model is written in: type, whether with importance, options.
Wanted = tuple[str, bool, str | None]
WANTED: list[Wanted] = [(type.name, given, None) for type in FileType for given in (False, True)]
WITH_OPTIONS: list[Wanted] = [
    (type, given, option)
    for type in ("Q4_K_M", "Q3_K_M", "F16")
    for given in (False, True)
    for option in OPTIONS
]


def wanted(model: str) -> list[Wanted]:
    return WANTED + (WITH_OPTIONS if model in (DENSE, "untied") else [])


def label(want: Wanted) -> str:
    type, given, option = want
    return " ".join(filter(None, [type, "with importance" if given else "", option or ""]))


def importance(file: GGUFFile) -> dict[str, np.ndarray]:
    """For every matrix of a block, of each expert where there are some."""
    found = {}
    for name, tensor in file.tensors.items():
        if name.startswith("blk.") and name.endswith(".weight") and len(tensor.shape) > 1:
            shape = (*tensor.shape[:-2], tensor.shape[-1])
            found[name] = (uniform(zlib.crc32(name.encode()) & 0xFFFF, shape) ** 4).astype("<f4")
    return found


def recipe(want: Wanted, given: dict[str, np.ndarray]) -> Recipe:
    type, with_importance, option = want
    chosen = OPTIONS[option] if option else {}
    entries = {
        name: Entry(
            values.reshape(-1, values.shape[-1]), np.ones(values.size // values.shape[-1], int)
        )
        for name, values in given.items()
    }
    return Recipe(type, imatrix=ImportanceMatrix(entries) if with_importance else None, **chosen)


def describe(path: Path) -> str:
    """The types of a file's tensors, so that a difference says where it is."""
    tensors = GGUFFile.open(path).tensors.values()
    return " ".join(tensor.type.name for tensor in tensors)
