"""``lfm2gguf devices``."""

from __future__ import annotations

import json as json_module

import typer

from lfm2gguf_cli.options import Json


def devices(json: Json = False) -> None:
    """Show what this installation can run models on, and how to get what it cannot.

    Example: lfm2gguf devices
    """
    from lfm2gguf.llamacpp import overview

    found = overview()
    if json:
        typer.echo(json_module.dumps(found, indent=2))
        return
    typer.echo(f"llama.cpp {found['build']['llama.cpp']}, ", nl=False)
    typer.echo(f"llama-cpp-python {found['build']['llama_cpp_python']}, {found['threads']} threads")
    for device in found["devices"]:
        free = f"{device['memory_free'] / 1e9:.1f} of {device['memory_total'] / 1e9:.1f} GB free"
        typer.echo(f"{device['use']:<10}{device['description']}, {free}")
    for text in found["missing"].values():
        typer.echo(f"\n{text}")
