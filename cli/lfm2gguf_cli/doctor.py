"""``lfm2gguf doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf_cli.options import Json

if TYPE_CHECKING:
    from lfm2gguf.doctor import Diagnosis
    from lfm2gguf_cli.console import Display

CHECK_FAILED = 1
STYLES = {"error": "red", "warning": "yellow", "note": "default"}


def doctor(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE_OR_FOLDER...", help="GGUF files, or checkpoints' folders."),
    ],
    backend: Annotated[
        str, typer.Option(help="Where it is to run, by the names of --device: cpu, cuda, ...")
    ] = "cpu",
    json: Json = False,
) -> None:
    """Say what is wrong with a GGUF file or a checkpoint, and what to do about it.

    Every weight is read. Exit code 1 if there are errors; warnings and notes do not count.

    Example: lfm2gguf doctor LFM2-1.2B-Q4_K_M.gguf --backend vulkan
    """
    from lfm2gguf.doctor import diagnose
    from lfm2gguf_cli.console import Display

    display = Display(json=json)
    diagnoses = [diagnose(path, backend=backend) for path in paths]
    if json:
        found = [diagnosis.to_json() for diagnosis in diagnoses]
        display.as_json(found if found[1:] else found[0])
    else:
        for diagnosis in diagnoses:
            _show(display, diagnosis)
    if not all(diagnosis.healthy for diagnosis in diagnoses):
        raise typer.Exit(CHECK_FAILED)


def _show(display: Display, diagnosis: Diagnosis) -> None:
    from lfm2gguf_cli.console import CONTROL

    for f in diagnosis.findings:
        head = f"{f.severity.value:7}  {f.id}  {f.where}: {f.what}".translate(CONTROL)
        display.line(head, STYLES[f.severity.value])
        if f.remedy:
            display.line(f"         -> {f.remedy}".translate(CONTROL))
    counts = (diagnosis.errors, diagnosis.warnings, diagnosis.notes)
    words = [f"{n} {kind}{'s' * (n != 1)}" for n, kind in zip(counts, STYLES, strict=True)]
    display.line(f"{diagnosis.path}: {', '.join(words)}")
