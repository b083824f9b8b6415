"""``lfm2gguf doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import HubType, Revision, Saying

if TYPE_CHECKING:
    from lfm2gguf.doctor import Diagnosis
    from lfm2gguf_cli.console import Display

CHECK_FAILED = 1
NEXT = {  # what comes before the file's name; of what lfm2gguf does not run: nothing
    "checkpoint": ("convert",),
    "model": ("run",),
    "projector": ("run", "MODEL.gguf", "--mmproj"),
    "adapter": ("run", "BASE.gguf", "--lora"),
    "imatrix": ("convert", "SOURCE", "--imatrix"),
}
STYLES = {"error": "red", "warning": "yellow", "note": "default"}


@grouped
def doctor(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|ID...",
            help="GGUF files, checkpoints' folders, or Hub ids, of which only headers are read.",
        ),
    ],
    backend: Annotated[
        str,
        typer.Option(metavar="cpu|cuda|vulkan|rocm|sycl|metal", help="Where it is to run."),
    ] = "cpu",
    *,
    type: HubType = None,
    revision: Revision = None,
    saying: Saying,
) -> None:
    """Say what is wrong with a GGUF file or a checkpoint, and what to do about it.

    Every weight is read. Exit code 1 if there are errors; warnings and notes do not count.

    Example: lfm2gguf doctor LFM2-1.2B-Q4_K_M.gguf --backend vulkan
    """
    from lfm2gguf.checkpoint import is_repository
    from lfm2gguf.doctor import diagnose

    display = saying.display()
    which = {"type": type, "revision": revision}
    of_hub = [path for path in paths if is_repository(path)] or paths  # files beside them are fine
    diagnoses = [
        diagnose(path, backend=backend, **(which if path in of_hub else {})) for path in paths
    ]
    found = [diagnosis.to_json() for diagnosis in diagnoses]
    if not display.gives(lambda: found if found[1:] else found[0]):
        for diagnosis in diagnoses:
            _show(display, diagnosis)
    if not all(diagnosis.healthy for diagnosis in diagnoses):
        display.hint("next: correct the errors, then ask again")
        raise typer.Exit(CHECK_FAILED)
    first = diagnoses[0]
    if words := NEXT.get("checkpoint" if first.kind == "checkpoint" else first.purpose):
        display.next("lfm2gguf", *words, paths[0])


def _show(display: Display, diagnosis: Diagnosis) -> None:
    from lfm2gguf_cli.console import CONTROL

    for f in diagnosis.findings:
        head = f"{f.severity.value:7}  {f.id}  {f.places}: {f.what}".translate(CONTROL)
        display.line(head, STYLES[f.severity.value])
        if f.remedy:
            display.line(f"         -> {f.remedy}".translate(CONTROL))
    for fact in diagnosis.facts:
        display.line(f"         {fact}".translate(CONTROL))
    counts = (diagnosis.errors, diagnosis.warnings, diagnosis.notes)
    words = [f"{n} {kind}{'s' * (n != 1)}" for n, kind in zip(counts, STYLES, strict=True)]
    display.line(f"{diagnosis.path}: {', '.join(words)}")
