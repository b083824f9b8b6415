"""``lfm2gguf calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import (
    Force,
    Jobs,
    Lora,
    MaterialOptions,
    Output,
    Pre,
    Revision,
    Saying,
    Source,
    Type,
)

NOT_BETTER = 1


@grouped
def calibrate(
    source: Source,
    *,
    type: Type = "Q4_K_M",
    output: Output = None,
    material: MaterialOptions,
    workspace: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder for finished tensors: a run that was stopped goes on from there.",
            show_default="a temporary one",
        ),
    ] = None,
    lora: Lora = None,
    revision: Revision = None,
    pre: Pre = None,
    jobs: Jobs = None,
    force: Force = False,
    saying: Saying,
) -> None:
    """Convert a checkpoint with weights rounded for what each layer sees: the same type, less loss.

    Example: lfm2gguf calibrate LiquidAI/LFM2-1.2B -t Q4_K_M

    The file has the types and the size of a plain one, and every llama.cpp runs it. A share of the
    text is kept aside to compare both; where the calibrated file is not better, the exit code is 1.
    """
    from lfm2gguf.calibration import calibrate as run
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_written

    display = saying.display()
    with progress_of(display) as progress:
        made = run(
            source, output, type, **material.arguments(),
            revision=revision, pre=pre, lora=lora, workspace=workspace, jobs=jobs,
            overwrite=force, progress=progress,
        )  # fmt: skip
    for name in made.few_tokens:
        display.note(f"{name}: fewer tokens than columns; use more text")
    judged = made.judgement
    show_written(display, made.conversion, {"calibration": made.to_json()})
    if not display.json:
        display.line(
            f"mean KL divergence on {judged.tokens} tokens kept aside: {judged.calibrated:.6f}, "
            f"and {judged.plain:.6f} of the plain file ({judged.ratio:.2f})"
        )
    if not made.better:
        display.complain("not better than the plain file on the text kept aside; use more text")
        raise typer.Exit(NOT_BETTER)
    file = made.conversion.files[0].path
    display.next("lfm2gguf", "verify", file, "--reference", source)
