"""An adapter over a checkpoint: which weights are replaced, and which get a delta."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lfm2gguf.checkpoint import Adapter, Checkpoint, Factor, LowRank, TensorInfo, trained_name
from lfm2gguf.errors import CheckpointError, TensorError
from lfm2gguf.lfm2.config import get, is_tied
from lfm2gguf.lfm2.plan import PlannedTensor
from lfm2gguf.lfm2.tied_head import EMBEDDING, HEAD

PACKED = re.compile(r"(?P<layer>.+\.feed_forward\.experts)(\.base_layer)*")
TAKEN = "they are taken, as peft does"
TOKENIZER_PARTS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
NO_TOKENIZER = (
    "not used, as a tokenizer is tokenizer.json and tokenizer_config.json: the base's is taken"
)
UNTIED = (
    "the head is written as a matrix of its own: the adapter changes it or the embedding alone, "
    "and the config ties them"
)


@dataclass(frozen=True)
class Adapted:
    """A checkpoint with the weights that an adapter holds whole, and the deltas by weight."""

    checkpoint: Checkpoint
    deltas: Mapping[str, LowRank] = field(default_factory=dict, repr=False)
    column_lengths: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


def adapt(checkpoint: Checkpoint, adapter: Adapter, left_out: Mapping[str, str]) -> Adapted:
    """Bring a checkpoint and an adapter together.

    ``checkpoint`` is what becomes a file, ``adapter`` what is for it, by the same names;
    ``left_out`` says why the rest of the adapter is not.

    Raises:
        CheckpointError: nothing of the adapter is for the file.
        TensorError: a part of the adapter fits no weight of the checkpoint.
        UnsupportedError: an adapter that cannot be merged.

    """
    adapter.check_merge()
    if not adapter.tensors:
        why = f": its tensors are {next(iter(left_out.values()))}" if left_out else ""
        raise CheckpointError(
            f"{adapter.path}: holds nothing for this file{why}; is it another model's?"
        )
    deltas = find_deltas(checkpoint.config, adapter)
    changed, notes = _with_saved(checkpoint, adapter, deltas)
    changed = replace(changed, name=f"{checkpoint.name}-{adapter.name}")
    lengths = {
        f"{module}.weight": factors["lora_magnitude_vector"]
        for module, factors in adapter.factors.items()
        if factors.keys() >= {"lora_embedding_A", "lora_magnitude_vector"}
    }
    return Adapted(changed, deltas, lengths, (*summary(adapter, deltas, left_out), *notes))


def with_tokenizer(adapted: Adapted, adapter: Adapter) -> Adapted:
    """Take the adapter's tokenizer, if it brings one that is whole."""
    parts = [name for name in TOKENIZER_PARTS if (adapter.path / name).is_file()]
    notes = [f"{adapter.path}: {name}: {NO_TOKENIZER}" for name in parts]
    checkpoint = adapted.checkpoint
    if adapter.has_tokenizer:
        notes = ["the tokenizer is the adapter's"]
        checkpoint = replace(checkpoint, tokenizer_path=adapter.path)
    return replace(adapted, checkpoint=checkpoint, notes=(*adapted.notes, *notes))


def find_deltas(config: Mapping[str, Any], adapter: Adapter) -> dict[str, LowRank]:
    """Return an adapter's deltas by the weights that they are for, experts one by one.

    Raises:
        TensorError: factors are not in pairs, or do not fit the config's experts.

    """
    deltas: dict[str, LowRank] = {}
    for module in adapter.factors:
        if packed := PACKED.fullmatch(module):
            deltas |= _expert_deltas(config, adapter, module, packed["layer"])
        else:
            deltas[f"{module}.weight"] = _delta(adapter, module)
    return deltas


def summary(
    adapter: Adapter, deltas: Iterable[str], left_out: Mapping[str, str]
) -> tuple[str, ...]:
    """Count how many deltas go where, and how many tensors of the adapter nowhere."""
    places = Counter(map(_place, deltas))
    counted = ", ".join(f"{n} {place}" for place, n in sorted(places.items()))
    return (
        f"{adapter.path}: {places.total()} deltas ({counted})",
        *(
            f"{adapter.path}: {n} of its tensors are left out: {why}"
            for why, n in Counter(left_out.values()).items()
        ),
    )


def check_deltas(adapted: Adapted, planned: Iterable[PlannedTensor]) -> None:
    """Refuse deltas that no tensor takes, or that have another shape than it.

    Raises:
        TensorError: such a delta; the message names it.

    """
    shapes = {
        source.key: source.shape
        if tensor.compute
        else (source.n_rows(tensor.shape[-1]), tensor.shape[-1])
        for tensor in planned
        for source in tensor.sources
    }
    for name, delta in adapted.deltas.items():
        file = delta.left.tensor.file
        if name not in shapes:
            raise TensorError(
                f"{file}: {delta.left.tensor.name!r} belongs to {name!r}, which the base model "
                "does not have; is it the adapter of another model?"
            )
        if delta.shape != shapes[name] or delta.left.shape[1] != delta.rank:
            raise TensorError(
                f"{file}: the factors of {name!r} are {delta.left.shape} and {delta.right.shape}, "
                f"which do not make up the weight's {shapes[name]}; is it the adapter of another "
                "model?"
            )


def _delta(adapter: Adapter, module: str) -> LowRank:
    factors = adapter.factors[module]
    a, b = adapter.pair(module)
    scale = adapter.scale(trained_name(a), a.shape[0])
    if "lora_embedding_A" in factors:  # (rank, vocabulary) and (hidden, rank)
        return LowRank(Factor.whole(a, flipped=True), Factor.whole(b, flipped=True), scale)
    lengths = factors.get("lora_magnitude_vector")
    return LowRank(Factor.whole(b), Factor.whole(a), scale, lengths)


def _expert_deltas(
    config: Mapping[str, Any], adapter: Adapter, module: str, layer: str
) -> dict[str, LowRank]:
    """Return the deltas of packed experts (peft's ``target_parameters``), expert by expert.

    A holds the experts' ranks one after another, B has them interleaved (``ParamWrapper``).
    """
    count: int = get(config, int, "num_experts", "num_local_experts", default=0)
    hidden, width = (int(config.get(k) or 0) for k in ("hidden_size", "moe_intermediate_size"))
    a, b = adapter.pair(module)
    parameters = {"gate_up_proj": (2 * width, hidden), "down_proj": (hidden, width)}
    found = (b.shape[0], a.shape[1])
    fits = {shape: (name, False) for name, shape in parameters.items()}
    across = {shape[::-1]: (name, True) for name, shape in parameters.items()}  # before peft 0.18
    if found not in across | fits or not count or a.shape[0] % count or a.shape[0] != b.shape[1]:
        raise TensorError(
            f"{adapter.path}: the factors of {module!r} are {b.shape} and {a.shape}, which make up "
            f"neither of the experts' matrices ({count} experts, {parameters}); is it the adapter "
            "of another model?"
        )
    name, flipped = (across | fits)[found]
    rank = a.shape[0] // count
    trained = trained_name(a)
    if packed := PACKED.fullmatch(trained):
        trained = packed["layer"]
    scale = adapter.scale(f"{trained}.{name}", rank)
    deltas = {}
    for i in range(count):
        of_a = Factor(a, i * rank, rank, 0, 1, a.shape[1], flipped)
        of_b = Factor(b, 0, b.shape[0], i, count, rank, flipped)
        whole = LowRank(of_a, of_b, scale) if flipped else LowRank(of_b, of_a, scale)
        if name == "down_proj":
            deltas[f"{layer}.{i}.w2.weight"] = whole
        else:
            deltas[f"{layer}.{i}.w1.weight"] = whole.below(0, width)
            deltas[f"{layer}.{i}.w3.weight"] = whole.below(width, width)
    return deltas


def _with_saved(
    checkpoint: Checkpoint, adapter: Adapter, deltas: Mapping[str, Any]
) -> tuple[Checkpoint, list[str]]:
    """Put the weights that the adapter holds whole into the checkpoint, its head tied or not."""
    tensors, config, notes = dict(checkpoint.tensors), dict(checkpoint.config), []
    embedding = EMBEDDING if checkpoint.has_head else EMBEDDING.removeprefix("model.")
    others = _other_base_layers(checkpoint, adapter)
    whole = others | adapter.saved
    for name, info in whole.items():
        if name not in (*checkpoint.tensors, HEAD):
            raise TensorError(
                f"{adapter.path}: the tensor {info.name!r} is not a factor, and the base model "
                f"does not have {name!r}, which it would replace; is it another model's adapter?"
            )
        tensors[name] = info
    if adapter.saved:
        notes.append(f"replaced by the adapter's own: {', '.join(adapter.saved)}")
    if others:
        notes.append(f"trained with other weights than the base's: {', '.join(others)}; {TAKEN}")
    if embedding in whole:
        config["vocab_size"] = whole[embedding].shape[0]
    if checkpoint.has_head and is_tied(config):
        base, own = checkpoint.tensors.get(EMBEDDING), whole.get(EMBEDDING)
        grew = bool(base and own and base.shape != own.shape)
        if _drifted(adapter, deltas, grew):
            tensors.setdefault(HEAD, tensors[EMBEDDING] if grew or not base else base)
            config |= {"tie_word_embeddings": False, "tie_embedding": False}
            notes.append(UNTIED)
    return replace(checkpoint, tensors=tensors, config=config), notes


def _other_base_layers(checkpoint: Checkpoint, adapter: Adapter) -> dict[str, TensorInfo]:
    """Return the weights that factors were trained with, where they are not the checkpoint's.

    peft saves those of embedding and head, and loads them (``utils/save_and_load.py``).
    """
    base = dict(checkpoint.tensors)
    if EMBEDDING in base:
        base.setdefault(HEAD, base[EMBEDDING])
    return {
        name: info
        for name, info in adapter.base_layers.items()
        if name not in base or not base[name].equals(info)
    }


def _drifted(adapter: Adapter, deltas: Mapping[str, Any], grew: bool) -> bool:
    """Say whether training moved the embedding and the head, tied at first, apart.

    peft trains copies of what ``modules_to_save`` names and leaves the other one as it was,
    but with ``ensure_weight_tying``. An embedding that grew has no other one to be tied to.
    """
    if adapter.config.get("ensure_weight_tying") and HEAD not in deltas:
        return False
    trained = set(adapter.config.get("modules_to_save") or [])
    alone = "embed_tokens" in trained and not grew
    return alone or "lm_head" in trained or EMBEDDING in deltas or HEAD in deltas


def _place(name: str) -> str:
    """Return the kind of module: its name without layer and expert numbers."""
    parts = [part for part in name.removesuffix(".weight").split(".") if not part.isdigit()]
    return ".".join(part for part in parts if part not in ("model", "layers"))
