"""``lfm2gguf convert-lora``."""

from __future__ import annotations

from typing import Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import TYPE, Force, Output, Saying


@grouped
def convert_lora(
    adapter: Annotated[str, typer.Argument(help="A LoRA adapter's PEFT folder, or its Hub id.")],
    *,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The base model's folder or Hub id; only its config.json is read.",
            show_default="the one that the adapter names",
        ),
    ] = None,
    type: Annotated[
        str, typer.Option(*TYPE, metavar="TYPE", help="F32, F16, BF16 or Q8_0.")
    ] = "F32",
    output: Output = None,
    force: Force = False,
    saying: Saying,
) -> None:
    """Convert a LoRA adapter to a GGUF file that llama.cpp applies to its base model's.

    Example: lfm2gguf convert-lora ./my-adapter --base LiquidAI/LFM2-1.2B
    """
    from lfm2gguf.conversion import Conversion, plan_adapter
    from lfm2gguf_cli.tables import show_notes, show_written

    display = saying.display()
    plan = plan_adapter(adapter, base, output, type)
    file = plan.write(overwrite=force).file
    show_notes(display, plan.notes, {})
    show_written(display, Conversion((file,), {}, plan.notes))
    display.next("lfm2gguf", "run", "BASE.gguf", "--lora", file.path)
