"""``lfm2gguf export``."""

from __future__ import annotations

import json as json_module
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import Force, Json


class Program(str, Enum):
    """The programs a model can be exported to."""

    OLLAMA = "ollama"
    LMSTUDIO = "lmstudio"


def export(
    program: Annotated[Program, typer.Argument(help="The program that is to run the model.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.gguf")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", show_default="standard output"),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write what another program needs to run the file correctly: template, stops, sampling.

    Example: lfm2gguf export ollama LFM2-1.2B-Q4_K_M.gguf -o Modelfile
    """
    from lfm2gguf.export.programs import export_for

    made = export_for(program.value, model)
    if output is not None:
        made.write(output, overwrite=force)
    if json:
        result = {**made.to_json(), "output": output and str(output)}
        typer.echo(json_module.dumps(result, indent=2, ensure_ascii=False))
    elif output is None:
        typer.echo(made.text, nl=False)
