"""``lfm2gguf devices``."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf_cli.options import Json

if TYPE_CHECKING:
    from lfm2gguf_cli.console import Display


def devices(
    warm_up: Annotated[
        bool,
        typer.Option(
            "--warm-up",
            help="Compile the kernels of the fast extra now, as a first conversion would.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show what this installation can run models on, and how to get what it cannot.

    Example: lfm2gguf devices
    """
    from lfm2gguf.llamacpp import overview
    from lfm2gguf.quants import describe_kernels

    if warm_up:
        from lfm2gguf_cli.console import Display

        _compile(Display(json=json))
    found = overview() | {"kernels": describe_kernels()}
    if json:
        typer.echo(json_module.dumps(found, indent=2))
        return
    typer.echo(f"llama.cpp {found['build']['llama.cpp']}, ", nl=False)
    typer.echo(f"llama-cpp-python {found['build']['llama_cpp_python']}, {found['threads']} threads")
    for device in found["devices"]:
        free = f"{device['memory_free'] / 1e9:.1f} of {device['memory_total'] / 1e9:.1f} GB free"
        typer.echo(f"{device['use']:<10}{device['description']}, {free}")
    kernels = found["kernels"]
    known = f"numba {kernels['numba']}" if kernels["numba"] else f"NumPy; {kernels['why']}"
    typer.echo(f"\nConversion by the kernels of {known}")
    for text in found["missing"].values():
        typer.echo(f"\n{text}")


def _compile(display: Display) -> None:
    from lfm2gguf.quants import CODECS, warm_up
    from lfm2gguf_cli.progress import progress_of

    with progress_of(display) as progress:
        ready = warm_up(CODECS.values(), progress)
    display.note(f"{ready} compiled kernels are ready" if ready else "NumPy's kernels are chosen")
