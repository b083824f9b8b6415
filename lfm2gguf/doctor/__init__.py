"""What is wrong with a GGUF file or a checkpoint, before anybody ships it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.doctor import adapter, projector, remote, runtime, scan, structure, template
from lfm2gguf.doctor.description import Description, describe
from lfm2gguf.doctor.finding import Diagnosis, Finding, Severity, together
from lfm2gguf.doctor.subject import Subject, from_checkpoint, from_gguf
from lfm2gguf.errors import Lfm2ggufError, OptionError
from lfm2gguf.lfm2 import Lfm2Config, Plan, has_projector, make_plan
from lfm2gguf.llamacpp import BACKENDS

__all__ = [
    "BACKENDS",
    "Description",
    "Diagnosis",
    "Finding",
    "Severity",
    "describe",
    "diagnose",
]

Check = Callable[[Subject], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    structure.architecture,
    structure.loads,
    structure.token_types,
    structure.context,
    structure.sampling,
    template.templates,
    scan.weights,
)
ADAPTER_CHECKS: tuple[Check, ...] = (structure.types, adapter.kind, adapter.pairs, scan.weights)
PROJECTOR_CHECKS: tuple[Check, ...] = (structure.types, projector.projector, scan.weights)
MATRIX_CHECKS: tuple[Check, ...] = (structure.importance,)


def diagnose(
    path: str | Path,
    *,
    backend: str = "cpu",
    type: str | None = None,
    revision: str | None = None,
) -> Diagnosis:
    """Examine a GGUF file, or a checkpoint's folder. Every weight is read once.

    Of a Hub repository nothing but the headers and the small files is fetched, and no weight
    examined; ``type`` says which of its GGUF files (Q4_K_M where it holds no checkpoint),
    ``revision`` which commit. ``backend`` is where it is to run: one of :data:`BACKENDS`.

    Raises:
        CheckpointError: the folder cannot be read at all.
        GGUFError: the file cannot be read at all.
        HubError: the repository cannot be reached.
        OptionError: the backend is unknown, or ``type`` or ``revision`` is given for what is on
            this machine.

    """
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise OptionError(f"backend (--backend) is {backend!r}: it must be one of {known}")
    with remote.opened(path, type, revision) as stand_in:
        if stand_in is None:
            return _diagnose(Path(path), backend)
        found = _diagnose(stand_in, backend, weights=False)
        return _of_repository(found, str(path), stand_in)


def _of_repository(found: Diagnosis, repository: str, stand_in: Path) -> Diagnosis:
    """Name the repository where the files that stand in for it were examined."""
    above = next(p for p in stand_in.parents if stand_in.is_relative_to(p / repository))
    findings = (
        replace(
            f, where=remote.plain_name(f.where, above), what=remote.plain_name(f.what, above),
        )
        for f in found.findings
    )  # fmt: skip
    name = Path(*stand_in.relative_to(above).parts)
    unread = "of the repository only headers were read: its weights were not examined"
    facts = (*(remote.plain_name(fact, above) for fact in found.facts), unread)
    return replace(found, path=name, findings=tuple(findings), facts=facts)


def _diagnose(path: Path, backend: str, *, weights: bool = True) -> Diagnosis:
    findings: list[Finding] = []
    if path.is_dir():
        subject, found = _checkpoint(path)
        findings += found
    else:
        subject = from_gguf(path)
    for check in _checks(subject):
        if weights or check is not scan.weights:
            findings += check(subject)
    if subject.purpose != "imatrix":  # which no backend computes with
        findings += runtime.types(subject, BACKENDS[backend])
    order = list(Severity)
    found = sorted(together(findings), key=lambda finding: order.index(finding.severity))
    facts = (
        *adapter.facts(subject), *runtime.minimum_build(subject), *template.facts(subject),
    )  # fmt: skip
    return Diagnosis(path, subject.kind, subject.purpose, tuple(found), facts)


def _checks(subject: Subject) -> tuple[Check, ...]:
    if subject.purpose == "adapter":
        return ADAPTER_CHECKS
    if subject.purpose == "imatrix":
        return MATRIX_CHECKS
    return PROJECTOR_CHECKS if projector.is_projector(subject) else CHECKS


def _checkpoint(path: Path) -> tuple[Subject, list[Finding]]:
    """See a checkpoint as the GGUF that it would become, or say why it would not."""
    checkpoint = Checkpoint.open(path)
    plan, findings = _plan(checkpoint, projector=False)
    plans = [plan]
    if has_projector(checkpoint):
        projector, found = _plan(checkpoint, projector=True)
        plans.append(projector)
        findings += [finding for finding in found if finding not in findings]
    tensors = list(checkpoint.tensors.values())
    if all(plans):  # what no file holds is not the model's
        used = {info for plan in plans if plan for info in plan.sources}
        tensors = [info for info in tensors if info in used]
    return from_checkpoint(path, plan, tensors), findings


def _plan(checkpoint: Checkpoint, *, projector: bool) -> tuple[Plan | None, list[Finding]]:
    """Return a plan, with its notes; or why there is none."""
    where = str(checkpoint.path)
    try:
        plan = make_plan(checkpoint, projector=projector)
    except Lfm2ggufError as error:
        finding = Finding("does-not-convert", Severity.ERROR, where, str(error), "")
        return None, ([] if projector else list(_width(checkpoint))) or [finding]
    return plan, [Finding("conversion", Severity.WARNING, where, note, "") for note in plan.notes]


def _width(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare the feed-forward width of config.json with that of the weights."""
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
