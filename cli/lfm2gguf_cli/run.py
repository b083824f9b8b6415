"""``lfm2gguf run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lfm2gguf_cli.options import (
    Device,
    GpuLayers,
    HubType,
    Json,
    Mmproj,
    ModelOrId,
    Threads,
    open_runner,
)


def run(
    model: ModelOrId,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Answer this and end; without it, standard input."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image that comes before the prompt; repeatable.")
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="Sound that comes before the prompt; repeatable.")
    ] = None,
    mmproj: Mmproj = None,
    adapter: Annotated[
        Path | None, typer.Option(help="A LoRA adapter, from lfm2gguf convert-lora.")
    ] = None,
    adapter_scale: Annotated[float, typer.Option(help="How strongly the adapter applies.")] = 1.0,
    type: HubType = "Q4_K_M",
    device: Device = "auto",
    gpu_layers: GpuLayers = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of context.", show_default="as trained, up to 8192")
    ] = None,
    threads: Threads = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", min=1)] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, show_default="the model's own")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="a new one")] = None,
    json: Json = False,
) -> None:
    """Chat with a model in the terminal, or get one answer.

    Example: lfm2gguf run LFM2-1.2B-Q4_K_M.gguf -p "What is C. elegans?"
    """
    from lfm2gguf_cli.chat import Chat, one_answer

    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings: dict[str, Any] = {
        "device": device, "gpu_layers": gpu_layers, "context": context, "threads": threads,
        "mmproj": mmproj,
    }  # fmt: skip
    if adapter is not None:
        settings["adapters"] = {adapter.name: adapter}
        options |= {"adapter": adapter.name, "adapter_scale": adapter_scale}
    media = [{"type": "image", "path": path} for path in image or ()]
    media += [{"type": "audio", "path": path} for path in audio or ()]
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    with open_runner(model, type, **settings) as lfm:
        if prompt is not None:
            one_answer(lfm, prompt, system, media, options, json=json)
        else:
            Chat(lfm, system, media, options).loop()
