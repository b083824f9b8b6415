"""``lfm2gguf export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import Force, Saying


class Program(str, Enum):
    """The programs a model can be exported to."""

    OLLAMA = "ollama"
    LMSTUDIO = "lmstudio"


NAMES = {Program.OLLAMA: "an Ollama Modelfile", Program.LMSTUDIO: "an LM Studio preset"}


@grouped
def export(
    program: Annotated[Program, typer.Argument(help="The program that is to run the model.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.gguf", help="The file.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write.",
            show_default="standard output",
        ),
    ] = None,
    force: Force = False,
    saying: Saying,
) -> None:
    """Write what another program needs to run the file correctly: template, stops, sampling.

    Example: lfm2gguf export ollama LFM2-1.2B-Q4_K_M.gguf -o Modelfile
    """
    from lfm2gguf.export.programs import export_for

    display = saying.display()
    made = export_for(program.value, model)
    if output is not None:
        made.write(output, overwrite=force)
    if display.gives(lambda: {**made.to_json(), "output": output and str(output)}):
        return
    if output is None:
        typer.echo(made.text, nl=False)
        return
    settings = ", ".join(f"{key.split('.')[-1]} {_value(x)}" for key, x in made.settings.items())
    display.line(f"{output}: {NAMES[program]} for {model}")
    display.line(f"template: {'written for it' if made.template else 'the one in the file'}")
    display.line(f"stops: {', '.join(made.stops)}")
    display.line(f"settings: {settings}")
    if program is Program.OLLAMA:
        display.next("ollama", "create", model.stem.lower(), "-f", output)
    else:
        display.hint(f"next: put {output} into ~/.lmstudio/config-presets, and choose it there")


def _value(setting: object) -> object:
    return setting.get("value") if isinstance(setting, dict) else setting
