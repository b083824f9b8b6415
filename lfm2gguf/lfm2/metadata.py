"""The metadata that every member has: what the model is called, and its vocabulary.

Names, size labels, model cards, special tokens, merges and chat templates come from the
gguf package's ``Metadata`` and ``SpecialVocab``, which llama.cpp's converter uses too. It is
imported where it is used: who runs a file does not wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfm2gguf.checkpoint import Checkpoint, Tokenizer, chat_templates, read_json
from lfm2gguf.errors import CheckpointError
from lfm2gguf.gguf_file import UNSTORABLE, Metadata, Value, ValueType
from lfm2gguf.lfm2.config import get
from lfm2gguf.lfm2.model_card import read_model_card
from lfm2gguf.lfm2.plan import PlannedTensor

if TYPE_CHECKING:
    import gguf

# Attribute of gguf.Metadata: keys of generation_config.json, the first that is there.
SAMPLING = {
    "sampling_sequence": ("sequence",),
    "sampling_top_k": ("top_k",),
    "sampling_top_p": ("top_p",),
    "sampling_min_p": ("min_p",),
    "sampling_xtc_probability": ("xtc_probability",),
    "sampling_xtc_threshold": ("xtc_threshold",),
    "sampling_temp": ("temperature",),
    "sampling_penalty_last_n": ("penalty_last_n",),
    "sampling_penalty_repeat": ("penalty_repeat", "repetition_penalty"),
    "sampling_mirostat": ("mirostat",),
    "sampling_mirostat_tau": ("mirostat_tau",),
    "sampling_mirostat_eta": ("mirostat_eta",),
}


@dataclass(frozen=True)
class Vocabulary:
    """The ``tokenizer.*`` keys, and what of the tokenizer is not in them."""

    keys: Metadata
    notes: tuple[str, ...] = ()


def general(
    checkpoint: Checkpoint,
    architecture: str,
    tensors: Sequence[PlannedTensor],
    kind: str = "model",
) -> Metadata:
    """Return the ``general.*`` keys: name, size, licence, languages, tags, sampling defaults.

    Raises:
        CheckpointError: the model card's front matter or generation_config.json is damaged.

    """
    import gguf

    counts = parameter_counts(tensors)
    about = described(checkpoint.path, checkpoint.name, checkpoint.config, counts[0])
    about.name = about.name or checkpoint.name
    about.size_label = about.size_label or gguf.size_label(*counts)
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type(kind)
    about.set_gguf_meta_model(writer)
    return {k: _storable(checkpoint.path, k, v) for k, v in writer.kv_data[0].items()}


def _storable(folder: Path, key: str, given: Any) -> Value:
    """Return the value, or raise an error that names the file it came from."""
    try:
        value = _value(given.value, given.type, given.sub_type)
        value.to_bytes()
        if isinstance(value.value, float) and not math.isfinite(value.value):
            raise ValueError("not a finite number")
    except UNSTORABLE as error:
        file = "generation_config.json" if key.startswith("general.sampling.") else "README.md"
        raise CheckpointError(
            f"{folder / file}: gives {given.value!r:.200} for {key}, of type "
            f"{given.type.name.lower()} ({error}); correct it, or delete it"
        ) from error
    return value


def described(
    folder: Path, name: str, config: Mapping[str, Any], n_parameters: int
) -> gguf.Metadata:
    """Read what a folder's model card, generation config and name say of a model or adapter.

    Raises:
        CheckpointError: the model card's front matter or generation_config.json is damaged.

    """
    import gguf

    generation = read_json(folder / "generation_config.json")
    get(config, str, "_name_or_path", default="")
    card = read_model_card(folder)
    try:
        about = gguf.Metadata.apply_metadata_heuristic(
            gguf.Metadata(), card, dict(config), Path(name), n_parameters
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'README.md'}: its front matter has a value of a kind that is not expected "
            f"({error}); correct it"
        ) from error
    for attribute, keys in SAMPLING.items():
        setattr(about, attribute, next((generation[k] for k in keys if k in generation), None))
    return about


def parameter_counts(tensors: Sequence[PlannedTensor]) -> tuple[int, int, int, int]:
    """Count weights in all, outside of experts, in one expert of each layer; and experts."""
    expert_shapes = [tensor.shape for tensor in tensors if "_exps." in tensor.name]
    in_experts = sum(map(math.prod, expert_shapes))
    in_one = sum(math.prod(shape[1:]) for shape in expert_shapes)
    total = sum(math.prod(tensor.shape) for tensor in tensors)
    return total, total - in_experts, in_one, expert_shapes[0][0] if expert_shapes else 0


def vocabulary(checkpoint: Checkpoint, n_rows: int, pre: str | None) -> Vocabulary:
    """Return the vocabulary for an embedding of ``n_rows`` rows.

    Raises:
        CheckpointError: a file is missing or damaged, or ids lie past the embedding.
        UnsupportedError: the tokenizer is of a kind that llama.cpp does not know.

    """
    import gguf

    folder = checkpoint.tokenizer_path or checkpoint.path
    tokenizer = Tokenizer.load(folder, pre)
    tokens, types = tokenizer.padded(n_rows)
    for file in ("tokenizer_config.json", "chat_template.json"):
        read_json(folder / file)
    writer = gguf.GGUFWriter(None, "")

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokens)
    writer.add_token_types([type.value for type in types])
    templates = chat_templates(folder)
    try:
        with _quiet("gguf.vocab"):
            special = gguf.SpecialVocab(folder, load_merges=True)
            order = special.special_token_types  # versions of gguf differ in theirs
            special.add_special_token = {
                kind: special.add_special_token[kind]
                for kind in order
                if kind in special.add_special_token
            }
            special.chat_template = templates
            special.add_to_gguf(writer, quiet=True)
            if names := writer.kv_data[0].get("tokenizer.chat_templates"):
                names.value.sort()  # gguf takes them from a set: in another order each time
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"{folder}: the tokenizer's special tokens cannot be read ({error!r}); copy "
            "its files from the base model"
        ) from error
    if not special.merges:
        raise CheckpointError(f"{folder / 'tokenizer.json'}: has no merges; save it again")
    for kind, id in special.special_token_ids.items():
        if id >= n_rows:
            raise CheckpointError(
                f"{folder}: the {kind} token has id {id}, past the {n_rows} embeddings; "
                "correct tokenizer_config.json"
            )
    return Vocabulary(recorded(writer), tokenizer.notes)


def recorded(writer: gguf.GGUFWriter) -> Metadata:
    """Return the keys that a writer of the gguf package was given."""
    return {key: _value(v.value, v.type, v.sub_type) for key, v in writer.kv_data[0].items()}


def _value(value: Any, type: gguf.GGUFValueType, sub_type: gguf.GGUFValueType | None) -> Value:
    if type.name != "ARRAY":
        return Value(ValueType[type.name], value)
    items = list(value)
    item_type = sub_type or type.get_type(items[0])
    return Value(ValueType.ARRAY, items, ValueType[item_type.name])


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a logger silent in this thread: SpecialVocab warns of what is normal for LFM2.

    A filter, as a switch of the logger's own would be put back by one conversion while another
    still works, and left off by that.
    """
    logger, here = logging.getLogger(logger_name), threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)
