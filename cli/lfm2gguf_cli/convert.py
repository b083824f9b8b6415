"""``lfm2gguf convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import (
    DryRun,
    Force,
    Jobs,
    Lora,
    ModelName,
    Output,
    Pre,
    Revision,
    Saying,
    Source,
    StorageOptions,
)

if TYPE_CHECKING:
    from lfm2gguf.conversion import Conversion, ConversionPlan
    from lfm2gguf.verification import ReferenceModel
    from lfm2gguf_cli.console import Display


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
    target: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Of a draft (DSpark): the model that it drafts for, whose tokenizer it has.",
        ),
    ] = None,
    model_name: ModelName = None,
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
    from lfm2gguf.conversion import plan_quantization
    from lfm2gguf_cli.conversions import finish, is_gguf, refuse_beside
    from lfm2gguf_cli.tables import show_notes

    display = saying.display()
    recipe = storage.recipe()
    if is_gguf(source):
        refuse_beside(source, mmproj=mmproj, lora=lora, target=target, model_name=model_name,
                      pre=pre, revision=revision, verify=verify)  # fmt: skip
        display.note(f"{source} is a GGUF file: quantized, as lfm2gguf quantize does")
        finish(display, plan_quantization(source, output, recipe), jobs, force, dry_run)
        return
    if verify and mmproj:
        raise OptionError("--verify compares what a text model predicts; a projector predicts none")
    plan = make_plan(
        source, output, recipe,
        projector=mmproj, revision=revision, pre=pre, lora=lora, target_model=target,
        name=model_name,
    )  # fmt: skip
    reference = _reference(plan, source, revision, lora) if verify and not dry_run else None
    show_notes(display, plan.notes, plan.left_out)
    written = finish(display, plan, jobs, force, dry_run, judged=reference is not None)
    if written and reference:
        _judge(display, written, reference)


def _reference(
    plan: ConversionPlan, source: str, revision: str | None, lora: str | None
) -> ReferenceModel:
    """Open what the files are compared with: what that raises is raised before they are there."""
    from lfm2gguf.verification import TYPE_LIMITS, open_reference

    for draft in plan.drafts:
        if draft.type.name not in TYPE_LIMITS:
            raise OptionError(
                f"--verify has no limits for {draft.type.name} yet; convert without it, then "
                "verify with --max-ppl-increase and the other limits"
            )
    return open_reference(source, revision, lora)


def _judge(display: Display, written: Conversion, reference: ReferenceModel) -> None:
    from lfm2gguf.verification import verify as verify_files
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import written_json
    from lfm2gguf_cli.verdicts import conclude, report_json, show_verdicts

    files = [file.path for file in written.files]
    with progress_of(display) as progress:
        results = verify_files(files, reference, progress=progress)
    display.gives(lambda: {**written_json(written), "verification": report_json(results)})
    show_verdicts(display, results)
    if failed := [result.candidate for result in results if not result.passed]:
        display.note(f"kept, but it did not pass: {', '.join(failed)}")
    conclude(display, results, files)
