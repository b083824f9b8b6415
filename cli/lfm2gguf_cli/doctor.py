"""``lfm2gguf doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import Json

CHECK_FAILED = 1


def doctor(
    path: Annotated[
        Path, typer.Argument(metavar="FILE_OR_FOLDER", help="A GGUF file or a checkpoint's folder.")
    ],
    backend: Annotated[
        str, typer.Option(help="Where it is to run: cpu, cuda, rocm, vulkan or metal.")
    ] = "cpu",
    json: Json = False,
) -> None:
    """Say what is wrong with a GGUF file or a checkpoint, and what to do about it.

    Every weight is read. Exit code 1 if there are errors; warnings and notes do not count.

    Example: lfm2gguf doctor LFM2-1.2B-Q4_K_M.gguf --backend vulkan
    """
    from lfm2gguf.doctor import diagnose
    from lfm2gguf_cli.display import Display

    diagnosis = diagnose(path, backend=backend)
    Display(json=json).diagnosis(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(CHECK_FAILED)
