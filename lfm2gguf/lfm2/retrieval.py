"""The retrieval models: LFM2-ColBERT, LFM2.5-ColBERT and LFM2.5-Embedding.

The text model without a head, its tensors named without ``model.``, in the layout of Sentence
Transformers: modules.json lists a pooling (Embedding) or a dense layer (ColBERT) beside it.
What becomes of them: conversion/lfm2.py and conversion/base.py (``_try_set_pooling_type``) of
llama.cpp, commit 0c1e57098. The prefixes of queries and documents have no key in a GGUF.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from lfm2gguf.checkpoint import Checkpoint, read_json, read_json_list
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2 import dense
from lfm2gguf.lfm2.dense import U32, Dense
from lfm2gguf.lfm2.plan import PlannedTensor, Source

BIDIRECTIONAL = "Lfm2BidirectionalModel"
DENSE_FOLDER = "1_Dense"
PROJECTION = f"{DENSE_FOLDER}/linear.weight"  # named after the folder, see checkpoint/folder.py
# Spellings of Sentence Transformers: the old, a flag each, and the new, one name. The id is
# that of ``enum llama_pooling_type``, include/llama.h.
POOLING_FLAGS = {"mean_tokens": 1, "cls_token": 2, "lasttoken": 3}
POOLING_MODES = {"mean": 1, "cls": 2, "lasttoken": 3}
NO_POOLING = (
    "no pooling is written, as no modules.json names one: llama.cpp gives a vector for each "
    "token. If the model is meant to give one for each text, download its whole folder, or "
    "say how to pool when running it (llama-embedding --pooling)"
)


@dataclass(frozen=True)
class Retrieval(Dense):
    """A text model without a head, and the modules that make vectors of its states."""

    modules: Mapping[str, str]  # each one's folder, by the last part of its type, as "Pooling"
    # The converter writes it as it meets the dense layer, before it writes anything else.
    leading: ClassVar[tuple[str, ...]] = (f"{Dense.architecture}.embedding_length_out",)

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Retrieval:
        """Parse the config, and modules.json where there is one."""
        model = Dense.open(checkpoint)
        modules = _modules(checkpoint.path / "modules.json")
        return cls(model.checkpoint, model.config, model.decided, modules)

    @property
    def projected(self) -> int | None:
        """Return the width that a dense layer ends in; None without one."""
        info = self.checkpoint.tensors.get(PROJECTION)
        return None if info is None else info.shape[0] if info.shape else 0

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its source."""
        config = self.config
        for tensor in dense.layout(config.layer_types, dense.dimensions(config), tied=True):
            sources = (replace(s, name=s.name.removeprefix("model.")) for s in tensor.sources)
            yield replace(tensor, sources=tuple(sources))
        if self.projected is not None:
            shape = (self.projected, config.hidden_size)
            yield PlannedTensor("dense_2.weight", shape, (Source(PROJECTION, shape),))

    def left_out(self) -> dict[str, str]:
        """Return nothing: without a head, every tensor is used."""
        return {}

    def metadata(self) -> Metadata:
        """Return the keys of the architecture.

        Raises:
            CheckpointError: what modules.json names is missing or damaged.
            UnsupportedError: a pooling or a dense layer that llama.cpp does not compute.

        """
        own: Metadata = {}
        if self.projected is not None:
            _check_dense(self.checkpoint.path / DENSE_FOLDER / "config.json")
            own["embedding_length_out"] = Value(U32, self.projected)
        elif "Dense" in self.modules:
            raise CheckpointError(
                f"{self.checkpoint.path}: modules.json names a dense layer in "
                f"{self.modules['Dense']!r}, and {DENSE_FOLDER}/model.safetensors is missing; "
                "download the whole folder"
            )
        if self.checkpoint.config["architectures"][0] == BIDIRECTIONAL:
            self._check_convolution()
            own["attention.causal"] = Value(ValueType.BOOL, False)
        if "Pooling" in self.modules:
            file = self.checkpoint.path / self.modules["Pooling"] / "config.json"
            own["pooling_type"] = Value(U32, _pooling(file))
        return super().metadata() | self.named(own)

    def notes(self) -> list[str]:
        """Return what a user may not expect: vectors of tokens, where one of the text is usual."""
        pools = self.projected is not None or "Pooling" in self.modules
        return ([] if pools else [NO_POOLING]) + super().notes()

    def _check_convolution(self) -> None:
        if self.config.conv_cache % 2 == 0:
            raise UnsupportedError(
                f"{self.checkpoint.path}: conv_L_cache is {self.config.conv_cache}; llama.cpp "
                "centres a convolution on its token, which takes an odd number"
            )


def _modules(path: Path) -> dict[str, str]:
    """Read the folder of each module by the last part of its type, such as ``Pooling``."""
    modules = read_json_list(path)
    for module in modules:
        about = module if isinstance(module, dict) else {}
        if not all(isinstance(about.get(key), str) for key in ("type", "path")):
            raise CheckpointError(f"{path}: {module!r} has no type and path; download it again")
    return {module["type"].rpartition(".")[2]: module["path"] for module in modules}


def _pooling(path: Path) -> int:
    config = read_json(path, needed_for="the pooling that modules.json names")
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = flags or [str(config.get("pooling_mode"))]
    known = {f"pooling_mode_{flag}": id for flag, id in POOLING_FLAGS.items()} | POOLING_MODES
    if len(names) != 1 or names[0] not in known:
        raise UnsupportedError(
            f"{path}: pooling by {' and '.join(names)}, where llama.cpp pools by the mean, the "
            "first or the last token; use the model in Sentence Transformers"
        )
    return known[names[0]]


def _check_dense(path: Path) -> None:
    """Refuse more than a matrix: llama.cpp does nothing else (src/llama-graph.cpp)."""
    activation = str(read_json(path).get("activation_function", "Identity"))
    if not activation.endswith("Identity"):
        raise UnsupportedError(
            f"{path}: the dense layer is followed by {activation}, which llama.cpp does not "
            "compute; use the model in Sentence Transformers"
        )
