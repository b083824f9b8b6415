"""``lfm2gguf convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.options import (
    ConvertTypes,
    DryRun,
    Force,
    Jobs,
    Json,
    Output,
    Quiet,
    SplitMaxSize,
)
from lfm2gguf_cli.verify import check_reference, judge, verified


def convert(
    source: Annotated[
        str, typer.Argument(help="A checkpoint's folder, or a Hub id such as LiquidAI/LFM2-1.2B.")
    ],
    type: ConvertTypes = None,
    output: Output = None,
    mmproj: Annotated[
        bool,
        typer.Option(
            "--mmproj",
            help="Write the projector (mmproj-NAME-TYPE.gguf: F32, F16, BF16 or Q8_0) "
            "of a vision or audio model instead of its text model; llama.cpp needs both files.",
        ),
    ] = False,
    jobs: Jobs = None,
    force: Force = False,
    dry_run: DryRun = False,
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
    split_max_size: SplitMaxSize = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Then compare each file with the checkpoint: see verify."),
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Convert an LFM2 checkpoint to GGUF, quantized, in one pass.

    Example: lfm2gguf convert LiquidAI/LFM2-1.2B -t Q4_K_M -t Q8_0

    A vision or audio model becomes two files: once without and once with --mmproj. LFM2.5-Audio's
    detokenizer is a third: lfm2gguf convert LiquidAI/LFM2.5-Audio-1.5B/audio_detokenizer
    """
    from lfm2gguf.conversion.from_checkpoint import draft_conversion
    from lfm2gguf.conversion.write import write
    from lfm2gguf_cli.display import Display

    if verify and mmproj:
        raise OptionError("--verify compares what a text model predicts; a projector predicts none")
    display = Display(quiet=quiet, json=json)
    plan, drafts = draft_conversion(
        source, output, type, projector=mmproj,
        revision=revision, pre=pre, lora=lora, split_max_size=split_max_size,
    )  # fmt: skip
    if verify:
        check_reference(source, revision, lora)
    display.left_out(plan.left_out)
    for note in plan.notes:
        display.note(note)
    if dry_run:
        display.drafts(drafts, plan.left_out, plan.notes)
        return
    with display.progress() as progress:
        files = write(drafts, jobs=jobs, overwrite=force, progress=progress)
    if not (json and verify):  # JSON comes as one object, at the end
        display.written(files, plan.left_out, plan.notes)
    if verify:
        results = verified(display, [file.path for file in files], source, revision, lora)
        if json:
            display.written(files, plan.left_out, plan.notes, results)
        else:
            display.verifications(results)
        judge(display, results)
