"""Which member of the family a checkpoint is, and the plan of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import gguf

from lfm2gguf.checkpoint import Adapter, Checkpoint, chat_template_notes, unwrapped
from lfm2gguf.errors import CheckpointError, OptionError, UnsupportedError
from lfm2gguf.lfm2 import audio, dense, detokenizer, moe, retrieval, tied_head, vision
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.lora import Adapted, adapt, check_deltas, with_tokenizer
from lfm2gguf.lfm2.metadata import general, vocabulary
from lfm2gguf.lfm2.plan import Plan, PlannedTensor, match

# config.json's architecture: the member's module.
MEMBERS: dict[str, ModuleType] = {
    "Lfm2ForCausalLM": dense,
    "LFM2ForCausalLM": dense,
    "Lfm2MoeForCausalLM": moe,
    "Lfm2Model": retrieval,
    "Lfm2BidirectionalModel": retrieval,
    "Lfm25AudioTokenizer": detokenizer,
}
# Those of two files: the module of the projector.
PROJECTORS: dict[str, ModuleType] = {
    "Lfm2VlForConditionalGeneration": vision,
    "Lfm2AudioForConditionalGeneration": audio,
}
PROJECTOR_ARCHITECTURE = "clip"  # what llama.cpp calls them all
# How to see a checkpoint as that of a text model, where it is more than that or named otherwise.
SEEN_AS_TEXT: dict[str, Callable[[Checkpoint], tuple[Checkpoint, dict[str, str]]]] = {
    **{name: module.text for name, module in PROJECTORS.items()},
    "Lfm25AudioTokenizer": detokenizer.renamed,
}
ARCHITECTURES = (*MEMBERS, *PROJECTORS)
# The beginning of architectures that have no place in llama.cpp (src/llama-arch.cpp and
# src/models/lfm2.cpp, commit 0c1e57098), and why.
NOT_IN_LLAMA_CPP = {
    "Lfm2Bidir": "an encoder with a head of its own (masked tokens, labels, routes, rules), for "
    "which llama.cpp's lfm2 has no tensors; run it in transformers",
    "Lfm3": "a generation that llama.cpp does not compute yet",
}


def make_plan(
    checkpoint: Checkpoint,
    pre: str | None = None,
    *,
    projector: bool = False,
    adapter: Adapter | None = None,
) -> Plan:
    """Decide everything about a checkpoint's GGUF but the type, without reading a weight.

    (But for weights that are saved twice, as a tied head beside the embedding: they are compared.)

    ``pre`` forces the pre-tokenizer's name instead of recognising it. With ``projector`` the plan
    is that of the projector (mmproj) of a vision or audio model, not of its text model. With
    ``adapter`` it is that of the model with the adapter in it.

    Raises:
        CheckpointError: a file is missing or damaged, or its parts do not fit together.
        OptionError: a projector is asked for, and the checkpoint has none.
        TensorError: a tensor is missing, left over, or of the wrong shape.
        UnsupportedError: not an LFM2 that can be converted; the message names what it is.

    """
    if projector:
        return _projector_plan(checkpoint, adapter)
    whole, (checkpoint, others, member) = checkpoint, _seen_as_text(checkpoint)
    adapted = Adapted(checkpoint)
    if adapter is not None:
        adapted = with_tokenizer(adapt(checkpoint, *text_adapter(whole, adapter)), adapter)
        checkpoint = adapted.checkpoint
    config = Lfm2Config.read(checkpoint.config)
    checkpoint, config, notes = tied_head.settle(checkpoint, config)
    tensors = tuple(member.tensors(config, checkpoint))
    left_out = match(checkpoint, tensors, others | member.left_out(config, checkpoint))
    check_deltas(adapted, tensors)
    notes += member.notes(checkpoint) if hasattr(member, "notes") else []
    if not hasattr(member, "vocabulary"):
        notes += chat_template_notes(checkpoint.tokenizer_path or checkpoint.path)
    keys = {
        **general(checkpoint, member.ARCHITECTURE, tensors),
        **member.metadata(config, checkpoint),
        **getattr(member, "vocabulary", vocabulary)(checkpoint, config.vocab_size, pre),
    }
    leading = ("general.architecture", *member.LEADING)
    metadata = dict(sorted(keys.items(), key=lambda item: item[0] not in leading))  # stable
    experts = metadata.get(f"{member.ARCHITECTURE}.expert_count")
    n_experts = experts.value if experts else 0
    n_layers = len(config.layer_types)
    return Plan(
        checkpoint,
        metadata,
        tensors,
        left_out,
        n_layers,
        n_experts,
        (*adapted.notes, *notes),
        adapted.deltas,
        adapted.column_lengths,
    )


def has_projector(checkpoint: Checkpoint) -> bool:
    """Whether it becomes two files."""
    names = checkpoint.config.get("architectures")
    return isinstance(names, list) and bool(names) and str(names[0]) in PROJECTORS


def base_tensors(checkpoint: Checkpoint) -> tuple[str, tuple[PlannedTensor, ...]]:
    """The architecture's name in GGUF files and the tensors, by the config alone.

    Raises:
        CheckpointError: config.json is damaged.
        UnsupportedError: not an LFM2 that can be converted.

    """
    checkpoint, _, member = _seen_as_text(checkpoint)
    config = Lfm2Config.read(checkpoint.config)
    return member.ARCHITECTURE, tuple(member.tensors(config, checkpoint))


def text_model(checkpoint: Checkpoint) -> Checkpoint:
    """The text model in a checkpoint, its tensors named as they are alone, and no others.

    Raises:
        CheckpointError: config.json is damaged.
        UnsupportedError: not an LFM2 that can be converted, or one without text.

    """
    checkpoint, others, member = _seen_as_text(checkpoint)
    if member is detokenizer:
        raise UnsupportedError(f"{checkpoint.path}: an audio detokenizer predicts no text")
    text = {name: info for name, info in checkpoint.tensors.items() if name not in others}
    return replace(checkpoint, tensors=text)


def text_adapter(base: Checkpoint, adapter: Adapter) -> tuple[Adapter, dict[str, str]]:
    """What of an adapter is for the text model, by the names that :func:`text_model` has.

    Also why each of its other tensors is not. ``base`` needs no tensors.
    """
    seen, others, _ = _seen_as_text(replace(base, tensors=adapter.tensors))
    text = {
        unwrapped(name, has_head=seen.has_head): info
        for name, info in seen.tensors.items()
        if name not in others
    }
    left_out = {name: why for name, why in others.items() if name in seen.tensors}
    left_out |= tied_head.repeated(replace(adapter, tensors=text), Lfm2Config.read(seen.config))
    text = {name: info for name, info in text.items() if name not in left_out}
    return replace(adapter, tensors=text), left_out


def _seen_as_text(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str], ModuleType]:
    """The text model, why the rest of the checkpoint is not part of it, and its member."""
    others: dict[str, str] = {}
    if view := SEEN_AS_TEXT.get(_class_name(checkpoint)):
        checkpoint, others = view(checkpoint)
    return checkpoint, others, MEMBERS[_class_name(checkpoint)]


def _projector_plan(checkpoint: Checkpoint, adapter: Adapter | None) -> Plan:
    if (architecture := _class_name(checkpoint)) not in PROJECTORS:
        raise OptionError(
            f"{checkpoint.path}: {architecture} is one file and has no projector; convert it "
            "without --mmproj (projector=False)"
        )
    member = PROJECTORS[architecture]
    adapted = Adapted(checkpoint)
    if adapter is not None:
        adapted = adapt(checkpoint, *_projector_adapter(member, checkpoint, adapter))
        checkpoint = adapted.checkpoint
    tensors = tuple(member.projector_tensors(checkpoint))
    left_out = match(checkpoint, tensors, member.projector_left_out(checkpoint))
    check_deltas(adapted, tensors)
    about = general(checkpoint, PROJECTOR_ARCHITECTURE, tensors, kind=gguf.GGUFType.MMPROJ)
    notes = member.projector_notes(checkpoint) if hasattr(member, "projector_notes") else []
    return Plan(
        checkpoint,
        about | member.projector_metadata(checkpoint),
        tensors,
        left_out,
        n_layers=0,
        notes=(*adapted.notes, *notes),
        deltas=adapted.deltas,
        column_lengths=adapted.column_lengths,
    )


def _projector_adapter(
    member: ModuleType, base: Checkpoint, adapter: Adapter
) -> tuple[Adapter, dict[str, str]]:
    """What of an adapter is for the projector, by the base's names, and why the rest is not."""
    others = member.projector_left_out(replace(base, tensors=adapter.tensors))
    own = {
        member.projector_name(base, name): info
        for name, info in adapter.tensors.items()
        if name not in others
    }
    return replace(adapter, tensors=own), others


def _class_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures")
    if not isinstance(names, list) or not names:
        raise CheckpointError(f"{checkpoint.path / 'config.json'}: names no 'architectures'")
    name = str(names[0])
    reason = next((why for start, why in NOT_IN_LLAMA_CPP.items() if name.startswith(start)), "")
    if reason and name not in ARCHITECTURES:
        raise UnsupportedError(f"{checkpoint.path}: the architecture is {name}, {reason}")
    if name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{checkpoint.path}: the architecture is {name}, which lfm2gguf does not convert; "
            f"it converts {', '.join(ARCHITECTURES)}"
        )
    return name
