"""``lfm2gguf run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import Saying
from lfm2gguf_cli.running import ModelOrId, OpeningOptions, PlaceOptions, sampling


@grouped
def run(
    model: ModelOrId,
    *,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Answer this and end; without it, standard input."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image that comes before the prompt; repeatable."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Sound that comes before the prompt; repeatable."),
    ] = None,
    opening: OpeningOptions,
    place: PlaceOptions,
    lora: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A LoRA adapter, from lfm2gguf convert-lora."),
    ] = None,
    lora_scale: Annotated[float | None, sampling("adapter_scale", shown="1")] = None,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Functions that it may call: JSON, as OpenAI has them."),
    ] = None,
    json_schema: Annotated[
        str | None,
        typer.Option(metavar="FILE|JSON", help="A JSON schema that the answer fits."),
    ] = None,
    max_tokens: Annotated[
        int | None, sampling("max_tokens", "--max-tokens", "-n", shown="no bound")
    ] = None,
    temperature: Annotated[float | None, sampling("temperature")] = None,
    top_k: Annotated[int | None, sampling("top_k")] = None,
    top_p: Annotated[float | None, sampling("top_p")] = None,
    min_p: Annotated[float | None, sampling("min_p")] = None,
    repeat_penalty: Annotated[float | None, sampling("repeat_penalty")] = None,
    stop: Annotated[list[str] | None, sampling("stop", shown="none", metavar="TEXT")] = None,
    seed: Annotated[int | None, sampling("seed", shown="a new one")] = None,
    saying: Saying,
) -> None:
    """Chat with a model in the terminal, or get one answer.

    Example: lfm2gguf run LFM2-1.2B-Q4_K_M.gguf -p "What is C. elegans?"
    """
    from lfm2gguf_cli.chat import Chat, one_answer
    from lfm2gguf_cli.json_input import read_tools, schema

    if lora_scale is not None and lora is None:
        raise OptionError("--lora-scale: there is no adapter to scale; give --lora")
    display = saying.display()
    given = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "repeat_penalty": repeat_penalty, "stop": stop, "seed": seed,
        "adapter_scale": lora_scale, "tools": read_tools(tools), "json_schema": schema(json_schema),
    }  # fmt: skip
    options: dict[str, Any] = {
        name: value for name, value in given.items() if value not in (None, [])
    }
    settings = place.arguments()
    if lora is not None:
        settings["adapters"] = {lora.name: lora}
        options["adapter"] = lora.name
    media = [{"type": "image", "path": path} for path in image or ()]
    media += [{"type": "audio", "path": path} for path in audio or ()]
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().removeprefix("\ufeff").strip()  # which PowerShell puts in front
    if prompt is None and (saying.json or saying.json_file):
        raise OptionError("--json and --json-file: are for one answer; give -p TEXT")
    with opening.open(model, **settings) as lfm:
        if prompt is not None:
            one_answer(lfm, prompt, system, media, options, display)
        else:
            Chat(lfm, system, media, options).loop()
