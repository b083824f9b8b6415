"""``lfm2gguf export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import Force


class Program(str, Enum):
    """The programs a model can be exported to."""

    OLLAMA = "ollama"
    LMSTUDIO = "lmstudio"


def export(
    program: Annotated[Program, typer.Argument(help="The program that shall run the model.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.gguf")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", show_default="standard output"),
    ] = None,
    force: Force = False,
) -> None:
    """Write what another program needs to run the file right: template, stops, sampling.

    Example: lfm2gguf export ollama LFM2-1.2B-Q4_K_M.gguf -o Modelfile
    """
    from lfm2gguf.errors import OutputError
    from lfm2gguf.runner.export import lmstudio_preset, modelfile

    text = modelfile(model) if program is Program.OLLAMA else lmstudio_preset(model)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise OutputError(f"{output} exists; --force replaces it")
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror})") from error
