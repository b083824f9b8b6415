"""What convert, convert-lora and quantize show of files, written or to be written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lfm2gguf.conversion import Conversion, ConversionPlan, Draft, WrittenFile
from lfm2gguf.rendering import file_size
from lfm2gguf_cli.console import Display

if TYPE_CHECKING:
    from lfm2gguf.allocation import Allocation


def show_notes(display: Display, notes: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Say what was decided, and which tensors are left out, those of one reason together."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in left_out.items():
        reasons[reason].append(name)
    for reason, names in reasons.items():
        which = names[0] if len(names) == 1 else f"{len(names)} tensors"
        display.note(f"left out: {which} ({reason})")
    for note in notes:
        display.note(note)


def show_plan(
    display: Display, plan: ConversionPlan, more: Mapping[str, Any] | None = None
) -> None:
    """Show what would be written: every tensor of every file; as data with ``more`` keys."""

    def data() -> dict[str, Any]:
        return {**_result(plan, [_draft_json(draft) for draft in plan.drafts]), **(more or {})}

    if display.gives(data):
        return
    for draft in plan.drafts:
        rows = [
            (t.name, shape(t.shape), t.type.name, f"{t.type.bits_per_weight:g}", str(t.nbytes),
             str(offset), file.path.name)
            for t, (file, offset) in zip(draft.tensors, draft.places, strict=True)
        ]  # fmt: skip
        display.table(("tensor", "shape", "type", "bits/weight", "bytes", "offset", "file"), rows)
        types = ", ".join(f"{n} {name}" for name, n in draft.type_counts.items())
        display.line(
            f"{draft.target}: {file_size(draft.nbytes)}, {draft.bits_per_weight:.2f} bits/weight, "
            f"{len(draft.tensors)} tensors ({types})"
        )


def show_allocation(display: Display, allocation: Allocation) -> None:
    """Show the types that were chosen for a budget, before anything is written."""
    for note in allocation.notes:
        display.note(note)
    if display.json:
        return
    rows = [
        (t.name, shape(t.shape), t.type.name, f"{t.type.bits_per_weight:g}", str(t.nbytes),
         f"{t.kld:.6f}")
        for t in allocation.tensors
    ]  # fmt: skip
    display.table(("tensor", "shape", "type", "bits/weight", "bytes", "KLD alone"), rows)
    display.line(
        f"chosen: {file_size(allocation.nbytes)}, {allocation.bits_per_weight:.2f} bits/weight; "
        f"mean KL divergence on {allocation.positions} positions of the text "
        f"{allocation.measured:.6f} (the tensors' own add up to {allocation.predicted:.6f})"
    )


def show_written(
    display: Display,
    written: Conversion,
    more: Mapping[str, Any] | None = None,
    *,
    data: bool = True,
) -> None:
    """Show what was written; as data with ``more`` keys beside it."""
    if data:
        display.gives(lambda: {**written_json(written), **(more or {})})
    if display.json:
        return
    rows = [
        (_name(f), f.type, file_size(f.nbytes), f"{f.bits_per_weight:.2f} bits/weight",
         f"{f.seconds:.1f} s", f"{f.weights_per_second / 1e6:.1f} M weights/s")
        for f in written.files
    ]  # fmt: skip
    display.lines(rows)


def written_json(written: Conversion) -> dict[str, Any]:
    """Return what was written as plain data."""
    return _result(written, [file.to_json() for file in written.files])


def _result(about: ConversionPlan | Conversion, files: list[dict[str, Any]]) -> dict[str, Any]:
    return {"files": files, "left_out": dict(about.left_out), "notes": list(about.notes)}


def shape(numbers: Sequence[int]) -> str:
    """Return a shape as a person reads it."""
    return " x ".join(map(str, numbers))


def _name(file: WrittenFile) -> str:
    return f"{file.path} ({file.n_files} files)" if file.n_files > 1 else str(file.path)


def _draft_json(draft: Draft) -> dict[str, Any]:
    return {
        "path": str(draft.target),
        "type": draft.type.name,
        "bytes": draft.nbytes,
        "weights": draft.n_weights,
        "bits_per_weight": round(draft.bits_per_weight, 4),
        "tensor_types": draft.type_counts,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.nbytes,
             "offset": offset, "file": file.path.name}
            for t, (file, offset) in zip(draft.tensors, draft.places, strict=True)
        ],
    }  # fmt: skip
