"""Which member of the family a checkpoint is, and the plan of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lfm2gguf.checkpoint import Adapter, Checkpoint, unwrapped
from lfm2gguf.errors import CheckpointError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import Metadata
from lfm2gguf.lfm2 import audio, detokenizer, tied_head, vision
from lfm2gguf.lfm2.audio import Audio
from lfm2gguf.lfm2.dense import Dense
from lfm2gguf.lfm2.detokenizer import Detokenizer
from lfm2gguf.lfm2.drafter import Drafter
from lfm2gguf.lfm2.lora import Adapted, adapt, check_deltas, with_tokenizer
from lfm2gguf.lfm2.member import Projector, TextMember
from lfm2gguf.lfm2.metadata import general
from lfm2gguf.lfm2.moe import Mixture
from lfm2gguf.lfm2.plan import Plan, PlannedTensor, match
from lfm2gguf.lfm2.retrieval import Retrieval
from lfm2gguf.lfm2.vision import Vision

# By config.json's architecture.
MEMBERS: dict[str, type[TextMember]] = {
    "Lfm2ForCausalLM": Dense,
    "LFM2ForCausalLM": Dense,
    "Lfm2MoeForCausalLM": Mixture,
    "Lfm2Model": Retrieval,
    "Lfm2BidirectionalModel": Retrieval,
    "Lfm25AudioTokenizer": Detokenizer,
    "Lfm2DSparkDraftModel": Drafter,
}
# Those that become two files: the second one.
PROJECTORS: dict[str, type[Projector]] = {
    "Lfm2VlForConditionalGeneration": Vision,
    "Lfm2AudioForConditionalGeneration": Audio,
}
PROJECTOR_ARCHITECTURE = "clip"  # what llama.cpp calls them all
# How to see a checkpoint as that of a text model alone, and what of it is not part of that.
SEEN_AS_TEXT: dict[str, Callable[[Checkpoint], tuple[Checkpoint, dict[str, str]]]] = {
    "Lfm2VlForConditionalGeneration": vision.text,
    "Lfm2AudioForConditionalGeneration": audio.text,
    "Lfm25AudioTokenizer": detokenizer.renamed,
}
ARCHITECTURES = (*MEMBERS, *PROJECTORS)
# How architectures begin that llama.cpp cannot represent (src/llama-arch.cpp and
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
    tokenizer: Path | None = None,
) -> Plan:
    """Decide everything about a checkpoint's GGUF but the type, without reading a weight.

    (But for weights that are saved twice, as a tied head beside the embedding: they are compared.)

    ``pre`` forces the pre-tokenizer's name instead of recognising it. With ``projector`` the plan
    is that of the projector (mmproj) of a vision or audio model, not of its text model. With
    ``adapter`` it is that of the model with the adapter in it. ``tokenizer`` is the folder of a
    draft's target.

    Raises:
        CheckpointError: a file is missing or damaged, or its parts do not fit together.
        OptionError: a projector is asked for, and the checkpoint has none; or a target is named,
            and it is no draft, or the reverse.
        TensorError: a tensor is missing, left over, or of the wrong shape.
        UnsupportedError: not an LFM2 that can be converted; the message names what it is.

    """
    if tokenizer is not None:
        if MEMBERS.get(_class_name(checkpoint)) is not Drafter:
            raise OptionError(
                f"{checkpoint.path}: is no draft, and has its own tokenizer; leave out "
                "target_model (--target)"
            )
        checkpoint = replace(checkpoint, tokenizer_path=tokenizer)
    if projector:
        return _projector_plan(checkpoint, adapter)
    return _text_plan(checkpoint, pre, adapter)


def _text_plan(whole: Checkpoint, pre: str | None, adapter: Adapter | None) -> Plan:
    text, others, member = _seen_as_text(whole)
    adapted = Adapted(text)
    if adapter is not None:
        adapted = with_tokenizer(adapt(text, *text_adapter(whole, adapter)), adapter)
    opened = member.open(adapted.checkpoint)
    tensors = tuple(opened.tensors())
    left_out = match(opened.checkpoint, tensors, {**others, **opened.left_out()})
    check_deltas(adapted, tensors)
    about = general(opened.checkpoint, opened.architecture, tensors) | opened.metadata()
    vocabulary = opened.vocabulary(pre)
    return Plan(
        opened.checkpoint,
        _leading(opened.leading, about | vocabulary.keys),
        tensors,
        left_out,
        opened.n_layers,
        opened.n_experts,
        notes=(*whole.notes, *adapted.notes, *opened.notes(), *vocabulary.notes),
        deltas=adapted.deltas,
        column_lengths=adapted.column_lengths,
    )


def _projector_plan(whole: Checkpoint, adapter: Adapter | None) -> Plan:
    if (architecture := _class_name(whole)) not in PROJECTORS:
        raise OptionError(
            f"{whole.path}: {architecture} is one file, without a projector; convert it "
            "with projector=False (without --mmproj)"
        )
    opened = PROJECTORS[architecture].open(whole)
    adapted = Adapted(whole)
    if adapter is not None:
        adapted = adapt(whole, *_projector_adapter(opened, adapter))
    tensors = tuple(opened.tensors())
    left_out = match(adapted.checkpoint, tensors, opened.left_out(adapted.checkpoint.tensors))
    check_deltas(adapted, tensors)
    about = general(adapted.checkpoint, PROJECTOR_ARCHITECTURE, tensors, "mmproj")
    return Plan(
        adapted.checkpoint,
        about | opened.metadata(),
        tensors,
        left_out,
        n_layers=0,
        notes=(*whole.notes, *adapted.notes, *opened.notes()),
        deltas=adapted.deltas,
        column_lengths=adapted.column_lengths,
    )


def _leading(names: tuple[str, ...], keys: Metadata) -> Metadata:
    """Move these keys to the front, behind the architecture; the others keep their order."""
    first = ("general.architecture", *names)
    return dict(sorted(keys.items(), key=lambda item: item[0] not in first))


def has_projector(checkpoint: Checkpoint) -> bool:
    """Say whether a checkpoint becomes two files."""
    names = checkpoint.config.get("architectures")
    return isinstance(names, list) and bool(names) and str(names[0]) in PROJECTORS


def base_tensors(checkpoint: Checkpoint) -> tuple[str, tuple[PlannedTensor, ...]]:
    """Return the architecture's name in GGUF files and the tensors, by the config alone.

    Raises:
        CheckpointError: config.json is damaged.
        UnsupportedError: not an LFM2 that can be converted.

    """
    text, _, member = _seen_as_text(checkpoint)
    opened = member.open(text)
    return opened.architecture, tuple(opened.tensors())


def text_model(checkpoint: Checkpoint) -> Checkpoint:
    """Return the text model in a checkpoint, its tensors named as they are alone, and no others.

    Raises:
        CheckpointError: config.json is damaged.
        UnsupportedError: not an LFM2 that can be converted, or one without text.

    """
    checkpoint, others, member = _seen_as_text(checkpoint)
    for kind, what in {Detokenizer: "an audio detokenizer", Drafter: "a draft"}.items():
        if member is kind:
            raise UnsupportedError(
                f"{checkpoint.path}: is {what}, which does not predict text alone; give the "
                "folder of the model that it belongs to"
            )
    text = {name: info for name, info in checkpoint.tensors.items() if name not in others}
    return replace(checkpoint, tensors=text)


def text_adapter(base: Checkpoint, adapter: Adapter) -> tuple[Adapter, dict[str, str]]:
    """Return what of an adapter is for the text model, by the names that :func:`text_model` has.

    Also why each of its other tensors is not. ``base`` needs no tensors.
    """
    seen, others, _ = _seen_as_text(replace(base, tensors=adapter.tensors))
    text = {
        unwrapped(name, has_head=seen.has_head): info
        for name, info in seen.tensors.items()
        if name not in others
    }
    left_out = {name: why for name, why in others.items() if name in seen.tensors}
    left_out |= tied_head.repeated(replace(adapter, tensors=text), seen)
    text = {name: info for name, info in text.items() if name not in left_out}
    return replace(adapter, tensors=text), left_out


def _seen_as_text(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str], type[TextMember]]:
    """Return the text model, why the rest of the checkpoint is not part of it, and its member."""
    others: dict[str, str] = {}
    if view := SEEN_AS_TEXT.get(_class_name(checkpoint)):
        checkpoint, others = view(checkpoint)
    return checkpoint, others, MEMBERS[_class_name(checkpoint)]


def _projector_adapter(projector: Projector, adapter: Adapter) -> tuple[Adapter, dict[str, str]]:
    """Return what of an adapter is for the projector, and why the rest is not."""
    others = dict(projector.left_out(adapter.tensors))
    own = {
        projector.own_name(name): info
        for name, info in adapter.tensors.items()
        if name not in others
    }
    return replace(adapter, tensors=own), others


def _class_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures")
    if not isinstance(names, list) or not names:
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'}: names no 'architectures'; copy the file from the "
            "model that this one was made from"
        )
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
