"""What ``run``, ``serve`` and ``bench`` have in common: where a model comes from and runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lfm2gguf.runner import Runner

ModelOrId = Annotated[
    str, typer.Argument(help="A GGUF file, or a Hub id such as LiquidAI/LFM2-1.2B-GGUF.")
]
HubType = Annotated[str, typer.Option("--type", "-t", help="Which file of a Hub repository.")]
Mmproj = Annotated[Path | None, typer.Option(help="The model's projector, for images and sound.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, vulkan, rocm or metal; cuda:1 for the second.")
]
GpuLayers = Annotated[
    int | None,
    typer.Option(help="Layers to offload; -1: all of them.", show_default="as many as fit"),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="physical cores")
]


def open_runner(model: str, type: str, **settings: Any) -> Runner:
    """Open a file, or the one of this type in a Hub repository."""
    from lfm2gguf.runner import Runner

    if Path(model).exists() or model.count("/") != 1 or model.endswith(".gguf"):
        return Runner(model, **settings)
    if not sys.stderr.isatty():  # progress bars are for people
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return Runner.from_hub(model, type, **settings)
