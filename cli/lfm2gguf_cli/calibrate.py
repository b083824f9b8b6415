"""``lfm2gguf calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import Chat, Chunks, Ctx, Force, Jobs, Json, Output, Quiet, Texts

NOT_BETTER = 1


def calibrate(
    source: Annotated[
        str, typer.Argument(help="A checkpoint's folder, or a Hub id such as LiquidAI/LFM2-1.2B.")
    ],
    type: Annotated[
        str, typer.Option("--type", "-t", help="A file type, as convert takes it.")
    ] = "Q4_K_M",
    output: Output = None,
    text: Texts = None,
    chat: Chat = None,
    chunks: Chunks = 128,
    ctx: Ctx = 512,
    workspace: Annotated[
        Path | None,
        typer.Option(
            help="A folder for finished tensors: a run that was stopped goes on from there.",
            show_default="a temporary one",
        ),
    ] = None,
    jobs: Jobs = None,
    force: Force = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")
    ] = None,
    pre: Annotated[
        str | None,
        typer.Option(help="Name of the pre-tokenizer, where it is not recognised (such as lfm2)."),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(help="A LoRA adapter to merge: a PEFT folder, or its Hub id."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Convert a checkpoint with weights rounded for what each layer sees: the same type, less loss.

    Example: lfm2gguf calibrate LiquidAI/LFM2-1.2B -t Q4_K_M

    The file has the types and the size of a plain one, and every llama.cpp runs it. A share of the
    text is kept aside to compare both; where the calibrated file is not better, the exit code is 1.
    """
    from lfm2gguf.calibration import calibrate as run
    from lfm2gguf_cli.console import Display
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_written

    display = Display(quiet=quiet, json=json)
    with progress_of(display) as progress:
        made = run(
            source, output, type, texts=text or (), chat=chat, chunks=chunks or None, ctx=ctx,
            revision=revision, pre=pre, lora=lora, workspace=workspace, jobs=jobs,
            overwrite=force, progress=progress,
        )  # fmt: skip
    for name in made.few_tokens:
        display.note(f"{name}: fewer tokens than columns; use more text")
    judged = made.judgement
    show_written(display, made.conversion, {"calibration": made.to_json()})
    if not json and not quiet:
        display.line(
            f"mean KL divergence on {judged.tokens} tokens kept aside: {judged.calibrated:.6f}, "
            f"and {judged.plain:.6f} of the plain file ({judged.ratio:.2f})"
        )
    if not made.better:
        display.complain("not better than the plain file on the text kept aside; use more text")
        raise typer.Exit(NOT_BETTER)
