"""A checkpoint folder: its config, and its tensors over all shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint.class_names import with_own_class
from lfm2gguf.checkpoint.hub import locate
from lfm2gguf.checkpoint.mlx import as_in_transformers
from lfm2gguf.checkpoint.mlx_audio import as_in_liquid_audio
from lfm2gguf.checkpoint.names import outer_prefix, unwrapped_names
from lfm2gguf.checkpoint.pointers import refuse_pointer
from lfm2gguf.checkpoint.quantized import quantization_notes, with_scales
from lfm2gguf.checkpoint.safetensors import TensorInfo, read_header
from lfm2gguf.checkpoint.surroundings import AGAIN, refuse_stand_in, refuse_without_weights
from lfm2gguf.errors import CheckpointError, TensorError
from lfm2gguf.json_text import kind_of, parse_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"
VARIANTS = "not read: {}, which transformers reads only if it is asked for that variant"


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder: ``config`` is config.json as it stands, ``tensors`` are by HF name.

    A tensor's own ``name`` is the one that it has in its file, wrapper and all.
    """

    path: Path
    name: str  # what the model is called: the folder's or the repository's name
    config: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    tokenizer_path: Path | None = None  # another folder's tokenizer, such as an adapter's
    notes: tuple[str, ...] = ()  # what was read otherwise than it stands there

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> Checkpoint:
        """Read a folder's config and the headers of its safetensors files.

        ``source`` is the folder, or a Hub id such as ``LiquidAI/LFM2-1.2B``, whose files are
        fetched; ``revision`` is a branch, tag or commit of that repository.

        Raises:
            CheckpointError: a file is missing, truncated or inconsistent.
            HubError: the repository cannot be fetched.
            UnsupportedError: the weights are quantized, or not in safetensors.

        """
        found = locate(source, revision)
        path = found.path
        is_adapter = (path / "adapter_config.json").is_file()
        if not (path / "config.json").is_file() and (is_adapter or not _has_weights(path)):
            refuse_stand_in(path)
        config = read_json(path / "config.json", needed_for=f"{path} to be a checkpoint")
        config, notes = with_own_class(config)
        stored, more = _tensors(path)
        stored, scaled = with_scales(config, stored)
        notes += (*more, *scaled, *quantization_notes(path, config, stored))
        tensors, read_so = _unwrapped(path, config, stored)
        tensors |= _module_tensors(path)
        return cls(path, found.name, config, tensors, notes=(*notes, *read_so))

    @classmethod
    def config_only(cls, source: str | Path, revision: str | None = None) -> Checkpoint:
        """Read config.json alone (and fetch nothing else): a checkpoint without tensors.

        Raises:
            CheckpointError: config.json is missing or damaged.
            HubError: the repository cannot be fetched.

        """
        found = locate(source, revision, files=["config.json"])
        file = found.path / "config.json"
        given = read_json(file, needed_for=f"{found.path} to be a checkpoint")
        config, notes = with_own_class(given)
        return cls(found.path, found.name, config, {}, notes=notes)

    @property
    def files(self) -> set[Path]:
        """Those that decide what the model computes: its config and its weights."""
        return {self.path / "config.json", *(info.file for info in self.tensors.values())}

    @property
    def has_head(self) -> bool:
        """Say whether the architecture has a head, and so ``model.`` before all other names."""
        return _has_head(self.config)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Read rows ``start:stop`` of a tensor's first axis, widened to float32.

        Raises:
            TensorError: there is no tensor of this name.

        """
        if name not in self.tensors:
            raise TensorError(
                f"{self.path}: the tensor {name!r} is missing; is the checkpoint complete?"
            )
        return self.tensors[name].read(start, stop)


def read_json(path: Path, needed_for: str = "") -> dict[str, Any]:
    """Read a JSON object; an absent file is empty unless ``needed_for`` says what needs it.

    Raises:
        CheckpointError: the file is absent but needed, or is not a JSON object.

    """
    if not path.is_file():
        if needed_for:
            raise CheckpointError(f"{path}: missing, and needed for {needed_for}; {AGAIN}")
        return {}
    data = _parsed(path)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds {kind_of(data)}, not an object; {AGAIN}")
    return data


def read_json_list(path: Path) -> list[Any]:
    """Read a JSON list; an absent file is empty.

    Raises:
        CheckpointError: the file is not a JSON list.

    """
    data = _parsed(path) if path.is_file() else []
    if not isinstance(data, list):
        raise CheckpointError(f"{path}: holds {kind_of(data)}, not a list; {AGAIN}")
    return data


def _parsed(path: Path) -> Any:
    refuse_pointer(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); {AGAIN}") from error


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors"))


def _has_head(config: Mapping[str, Any]) -> bool:
    return str(config.get("architectures")).endswith("ForCausalLM']")


def _unwrapped(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Return tensors by their names in transformers, and what was taken off or read otherwise."""
    prefix = outer_prefix(tensors, has_head=_has_head(config))
    alone = {name.removeprefix(prefix): name for name in tensors}
    if len(alone) < len(tensors):
        raise CheckpointError(f"{folder}: has tensors with and without {prefix!r}; save one model")
    try:
        names = unwrapped_names(alone, has_head=_has_head(config))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    found, notes = as_in_transformers({name: tensors[alone[n]] for name, n in names.items()})
    taken = (f"all tensors' names begin with {prefix!r}, which is taken off",) * bool(prefix)
    found, of_audio = as_in_liquid_audio(found)
    return found, (*taken, *notes, *of_audio)


def _tensors(folder: Path) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Read the headers of all shards; also what is not read, and why."""
    shards, expected = _shards(folder)
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard}: missing, though {INDEX} names this shard; {AGAIN}")
        for name, info in read_header(shard).items():
            if name in tensors:
                raise CheckpointError(
                    f"{folder}: the tensor {name!r} is in {tensors[name].file.name} "
                    f"and in {shard.name}; remove the file that does not belong"
                )
            tensors[name] = info
    notes = [VARIANTS.format(", ".join(p.name for p in _variants(folder)))] * bool(
        shards == [folder / SINGLE] and _variants(folder)
    )
    if HEAD in expected and HEAD not in tensors:  # tied, and counted by a trainer all the same
        notes.append(f"{INDEX} lists {HEAD}, which no shard holds: it is the embedding")
        expected = {name: shard for name, shard in expected.items() if name != HEAD}
    for name, shard_name in expected.items():
        if name not in tensors or tensors[name].file.name != shard_name:
            raise CheckpointError(
                f"{folder}: {INDEX} says that the tensor {name!r} is in {shard_name}, "
                "and it is not; download or save the checkpoint again"
            )
    return tensors, tuple(notes)


def _module_tensors(folder: Path) -> dict[str, TensorInfo]:
    """Read the tensors of Sentence Transformers' modules, such as ``1_Dense/linear.weight``."""
    return {
        f"{file.parent.name}/{name}": replace(info, name=f"{file.parent.name}/{name}")
        for file in sorted(folder.glob("[0-9]*_*/model.safetensors"))
        for name, info in read_header(file).items()
    }


def _shards(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Find the safetensors files, and where the index (if there is one) puts each tensor."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{folder / INDEX}: has no 'weight_map'; {AGAIN}")
        for file in weight_map.values():
            if not isinstance(file, str) or Path(file).name != file:
                raise CheckpointError(
                    f"{folder / INDEX}: {file!r} is not a file's plain name; {AGAIN}"
                )
        shards = sorted(set(weight_map.values()))
        if shards != [SINGLE] and (folder / SINGLE).is_file():
            raise CheckpointError(
                f"{folder}: has {SINGLE}, and {INDEX} that names {len(shards)} other shards; "
                f"transformers loads {SINGLE}. Delete that file, or else {INDEX} and its shards, "
                "whichever is the older model"
            )
        return [folder / shard for shard in shards], weight_map
    shards = sorted(set(folder.glob("model*.safetensors")) - set(_variants(folder)))
    if not shards:  # a variant alone is the model
        shards = _variants(folder)[:1]
    if not shards:
        refuse_without_weights(folder, f"{SINGLE} or {INDEX}")
    return shards, {}


def _variants(folder: Path) -> list[Path]:
    """Return models in another precision beside the model, such as model.fp16.safetensors.

    transformers reads them only where ``variant`` names one.
    """
    return sorted(p for p in folder.glob("model.*.safetensors") if "-of-" not in p.name)
