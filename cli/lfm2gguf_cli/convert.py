"""``lfm2gguf convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import (
    DryRun,
    Force,
    Jobs,
    Lora,
    Output,
    Pre,
    Revision,
    Saying,
    Source,
    StorageOptions,
)


@grouped
def convert(
    source: Source,
    storage: StorageOptions,
    *,
    output: Output = None,
    mmproj: Annotated[
        bool,
        typer.Option(
            "--mmproj",
            help="Write the projector (mmproj-NAME-TYPE.gguf: F32, F16, BF16 or Q8_0) "
            "of a vision or audio model instead of its text model; llama.cpp needs both files.",
        ),
    ] = False,
    lora: Lora = None,
    revision: Revision = None,
    pre: Pre = None,
    jobs: Jobs = None,
    force: Force = False,
    dry_run: DryRun = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Then compare each file with the checkpoint: see verify."),
    ] = False,
    saying: Saying,
) -> None:
    """Convert an LFM2 checkpoint to GGUF, quantized, in one pass.

    Example: lfm2gguf convert LiquidAI/LFM2-1.2B -t Q4_K_M -t Q8_0

    A vision or audio model becomes two files: once without and once with --mmproj. LFM2.5-Audio's
    detokenizer is a third: lfm2gguf convert LiquidAI/LFM2.5-Audio-1.5B/audio_detokenizer
    """
    from lfm2gguf.conversion import plan as make_plan
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_notes, show_plan, show_written

    if verify and mmproj:
        raise OptionError("--verify compares what a text model predicts; a projector predicts none")
    display = saying.display()
    recipe = storage.recipe()
    plan = make_plan(
        source, output, recipe,
        projector=mmproj, revision=revision, pre=pre, lora=lora,
    )  # fmt: skip
    if verify:  # what it would raise is raised before the files are there
        from lfm2gguf.verification import TYPE_LIMITS, open_reference

        for draft in plan.drafts:
            if draft.type.name not in TYPE_LIMITS:
                raise OptionError(
                    f"--verify has no limits for {draft.type.name} yet; convert without it, then "
                    "verify with --max-ppl-increase and the other limits"
                )
        reference = open_reference(source, revision, lora)
    show_notes(display, plan.notes, plan.left_out)
    if dry_run:
        show_plan(display, plan)
        return
    with progress_of(display) as progress:
        written = plan.write(jobs=jobs, overwrite=force, progress=progress)
    if not verify:
        show_written(display, written)
        return
    from lfm2gguf.verification import verify as verify_files
    from lfm2gguf_cli.verdicts import exit_on_failure, report_json, show_verdicts

    if not display.json:  # which comes as one object, at the end
        show_written(display, written)
    files = [file.path for file in written.files]
    with progress_of(display) as progress:
        results = verify_files(files, reference, progress=progress)
    if display.json:
        show_written(display, written, {"verification": report_json(results)})
    else:
        show_verdicts(display, results)
    if failed := [result.candidate for result in results if not result.passed]:
        display.note(f"kept, but it did not pass: {', '.join(failed)}")
    exit_on_failure(results)
