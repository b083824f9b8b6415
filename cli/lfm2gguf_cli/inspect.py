"""``lfm2gguf inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import Json


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="FILE_OR_FOLDER", help="A GGUF file or a checkpoint's folder.")
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Show arrays whole, such as the vocabulary.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the metadata and the tensors of a GGUF file or of a checkpoint.

    Example: lfm2gguf inspect LFM2-1.2B-Q4_K_M.gguf
    """
    from lfm2gguf.doctor.description import describe
    from lfm2gguf_cli.display import Display

    Display(json=json).description(describe(path, full=full))
