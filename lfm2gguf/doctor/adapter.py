"""A LoRA adapter's GGUF: what can be said without its base model.

Facts: ``llama_adapter_lora_init_impl`` in src/llama-adapter.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Iterator

from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject

AGAIN = "make it again with lfm2gguf convert-lora"
A, B = ".lora_a", ".lora_b"
IGNORED = "_norm.weight"


def facts(subject: Subject) -> Iterator[str]:
    """Say that an adapter is one, and what is to be done with it."""
    if subject.get("general.type") == "adapter":
        yield (
            f"an adapter for {subject.architecture}: whether it fits its base was not examined; "
            "run it with its base model (--lora FILE), or merge it: convert BASE --lora"
        )


def kind(subject: Subject) -> Iterator[Finding]:
    """Check that llama.cpp takes it for an adapter."""
    if (given := subject.get("adapter.type")) != "lora":
        yield Finding(
            "adapter-type", Severity.ERROR, "adapter.type",
            f"is {given!r}, not 'lora'; llama.cpp refuses the file", AGAIN,
        )  # fmt: skip


def pairs(subject: Subject) -> Iterator[Finding]:
    """Check that each tensor has its other half, of the same rank."""
    shapes = subject.shapes
    for name, shape in shapes.items():
        module, half = name[: -len(A)], name[-len(A) :]
        if half == A and shapes.get(module + B, (0,))[-1] != shape[-2 if len(shape) > 1 else 0]:
            there = shapes.get(module + B)
            what = f"and {module + B} of rank {there[-1]} do not fit" if there else "has no lora_b"
        elif half == B and module + A not in shapes:
            what = "has no lora_a"
        elif half not in (A, B) and not name.endswith(IGNORED):
            what = "is not part of an adapter"
        else:
            continue
        yield Finding(
            "adapter-tensor", Severity.ERROR, name, f"{what}; llama.cpp refuses the file", AGAIN
        )
