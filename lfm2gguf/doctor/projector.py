"""A projector's GGUF (mmproj): the keys that libmtmd reads, and whether its tensors fit them.

Facts: ``load_hparams`` and ``load_tensors`` in tools/mtmd/clip.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject
from lfm2gguf.gguf_file import Value, ValueType

AGAIN = "make it again with lfm2gguf convert --mmproj"
INT32_MAX = 2**31 - 1
COMMON = {
    "embedding_length": ValueType.UINT32,
    "attention.head_count": ValueType.UINT32,
    "feed_forward_length": ValueType.UINT32,
    "block_count": ValueType.UINT32,
    "projection_dim": ValueType.UINT32,
    "attention.layer_norm_epsilon": ValueType.FLOAT32,
}
IMAGE = {"image_size": ValueType.UINT32, "patch_size": ValueType.UINT32}
SOUND = {"num_mel_bins": ValueType.UINT32}
COLOURS = 3


@dataclass(frozen=True)
class Modality:
    """What a projector is for: its keys' part of the name, its kind, and its own keys."""

    name: str
    kind: str  # clip.projector_type
    tensors: str
    own: dict[str, ValueType]

    @property
    def keys(self) -> dict[str, ValueType]:
        """The keys that libmtmd refuses to do without, with their types."""
        return {f"clip.{self.name}.{key}": type for key, type in (COMMON | self.own).items()}


MODALITIES = {
    "clip.has_vision_encoder": Modality("vision", "lfm2", "v", IMAGE),
    "clip.has_audio_encoder": Modality("audio", "lfm2a", "a", SOUND),
}


def is_projector(subject: Subject) -> bool:
    """Say whether the file is a projector, by its own keys."""
    return subject.architecture == "clip" or subject.get("general.type") == "mmproj"


def projector(subject: Subject) -> Iterator[Finding]:
    """Check keys, then tensors against them."""
    found = [m for key, m in MODALITIES.items() if subject.get(key) is True]
    if not found:
        yield _refused(" or ".join(MODALITIES), "is not true: libmtmd finds no encoder in the file")
    for modality in found:
        kind = subject.get("clip.projector_type")
        if kind != modality.kind:
            yield Finding(
                "projector-type", Severity.WARNING, "clip.projector_type",
                f"is {kind!r}, not LFM2's {modality.kind!r}: what is particular to LFM2 was not "
                "examined", "nothing, if that is what it is meant to be",
            )  # fmt: skip
        wrong = list(_keys(subject, modality))
        yield from wrong
        if not wrong and kind == modality.kind:
            yield from (_images if modality.name == "vision" else _sounds)(subject)
            yield from _blocks(subject, modality)


def _keys(subject: Subject, modality: Modality) -> Iterator[Finding]:
    for key, type in modality.keys.items():
        if problem := _problem(subject.metadata.get(key), type):
            yield _refused(key, problem)
    if modality.name == "vision":
        for key in ("clip.vision.image_mean", "clip.vision.image_std"):
            value = subject.metadata.get(key)
            if value is None or value.item_type is not ValueType.FLOAT32:
                yield _refused(key, "is missing, or no array of float32")
            elif len(value.value) < COLOURS:
                yield _refused(key, f"has {len(value.value)} numbers; libmtmd wants {COLOURS}")


def _problem(value: Value | None, type: ValueType) -> str:
    if value is None:
        return "is missing"
    if value.type is not type:
        return f"is {value.type.name.lower()}, where a {type.name.lower()} belongs"
    if type is ValueType.UINT32 and not 0 < value.value <= INT32_MAX:
        return f"is {value.value}"
    if type is ValueType.FLOAT32 and not 0 < value.value < math.inf:
        return f"is {value.value}"
    return ""


def _images(subject: Subject) -> Iterator[Finding]:
    size = {key: subject.number(f"clip.vision.{key}") or 0 for key in (COMMON | IMAGE)}
    scale = subject.number("clip.vision.projector.scale_factor") or 2
    hidden, patch = size["embedding_length"], size["patch_size"]
    yield from _shape(subject, "v.patch_embd.weight", {0: hidden, 2: patch, 3: patch})
    yield from _shape(subject, "mm.1.weight", {1: hidden * scale * scale})
    yield from _shape(subject, "mm.2.weight", {0: size["projection_dim"]})


def _sounds(subject: Subject) -> Iterator[Finding]:
    hidden = subject.number("clip.audio.embedding_length") or 0
    yield from _shape(subject, "a.pre_encode.out.weight", {0: hidden})


def _blocks(subject: Subject, modality: Modality) -> Iterator[Finding]:
    count = subject.number(f"clip.{modality.name}.block_count") or 0
    hidden = subject.number(f"clip.{modality.name}.embedding_length") or 0
    heads = subject.number(f"clip.{modality.name}.attention.head_count") or 1
    if hidden % heads:
        yield _refused(
            f"clip.{modality.name}.attention.head_count",
            f"is {heads}, which does not divide the width of {hidden}",
        )
    block = re.compile(rf"{modality.tensors}\.blk\.(\d+)\.")
    there = {int(match[1]) for name in subject.shapes if (match := block.match(name))}
    if missing := set(range(min(count, 1 << 16))) - there:
        yield _refused(
            f"clip.{modality.name}.block_count",
            f"is {count}, and the tensors of block {min(missing)} are missing",
        )


def _shape(subject: Subject, name: str, wanted: dict[int, int]) -> Iterator[Finding]:
    shape = subject.shapes.get(name)
    if shape is None:
        yield _refused(name, "is missing")
    elif any(len(shape) <= axis or shape[axis] != n for axis, n in wanted.items()):
        sizes = " x ".join(str(wanted.get(i, n)) for i, n in enumerate(shape))
        there = " x ".join(map(str, shape))
        yield _refused(name, f"is {there}, and the metadata calls for {sizes}")


def _refused(where: str, what: str) -> Finding:
    return Finding(
        "projector", Severity.ERROR, where, f"{what}; libmtmd cannot use the file", AGAIN
    )
