"""What is wrong with a GGUF file or a checkpoint, before anybody ships it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.doctor import runtime, scan, structure, template
from lfm2gguf.doctor.finding import Diagnosis, Finding, Severity
from lfm2gguf.doctor.subject import Subject, from_checkpoint, from_gguf
from lfm2gguf.errors import Lfm2ggufError, OptionError
from lfm2gguf.lfm2 import Lfm2Config, make_plan

__all__ = ["BACKENDS", "Diagnosis", "Finding", "Severity", "diagnose"]

BACKENDS = tuple(runtime.BACKENDS)
CHECKS = (
    structure.architecture,
    structure.needed_keys,
    structure.tensors,
    structure.vocabulary,
    structure.token_types,
    structure.context,
    template.templates,
    runtime.minimum_build,
    scan.weights,
)


def diagnose(path: str | Path, *, backend: str = "cpu") -> Diagnosis:
    """Examine a GGUF file, or a checkpoint's folder. Every weight is read once.

    ``backend`` is where it is to run: cpu, cuda, rocm, vulkan or metal.

    Raises:
        GGUFError, CheckpointError: the file or folder cannot be read at all.
        OptionError: an unknown backend.

    """
    if backend not in runtime.BACKENDS:
        raise OptionError(f"unknown backend {backend!r}: give one of {', '.join(BACKENDS)}")
    path = Path(path)
    findings: list[Finding] = []
    if path.is_dir():
        subject, found = _checkpoint(path)
        findings += found
    else:
        subject = from_gguf(path)
    for check in CHECKS:
        findings += check(subject)
    findings += runtime.types(subject, runtime.BACKENDS[backend])
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Diagnosis(path, subject.kind, tuple(findings))


def _checkpoint(path: Path) -> tuple[Subject, list[Finding]]:
    """See a checkpoint as the GGUF that it would become, or say why it would not."""
    checkpoint = Checkpoint.open(path)
    try:
        plan = make_plan(checkpoint)
    except Lfm2ggufError as error:
        findings = list(_width(checkpoint)) or [
            Finding(
                "does-not-convert", Severity.ERROR, str(path), str(error), "see the message"
            )
        ]  # fmt: skip
        return from_checkpoint(checkpoint, {}, {}), findings
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    notes = [
        Finding("conversion", Severity.WARNING, str(path), note, "see the message")
        for note in plan.notes
    ]
    return from_checkpoint(checkpoint, plan.metadata, shapes), notes


def _width(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The feed-forward width of config.json against the one that the weights have."""
    try:
        said = Lfm2Config.read(checkpoint.config).feed_forward
    except Lfm2ggufError:
        return
    for name, tensor in checkpoint.tensors.items():
        if name.endswith("feed_forward.w1.weight") and tensor.shape[:1] != (said,):
            width = math.prod(tensor.shape[:1])
            yield Finding(
                "feed-forward-width", Severity.ERROR, "config.json",
                f"makes the feed-forward layers {said} wide, and {name} is {width}",
                f"set intermediate_size to {width} and block_auto_adjust_ff_dim to false",
            )  # fmt: skip
            return
