"""``lfm2gguf convert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import (
    BudgetOptions,
    DryRun,
    Force,
    Jobs,
    Lora,
    MaterialOptions,
    ModelName,
    Output,
    OwnText,
    Pre,
    Revision,
    Saying,
    Source,
    StorageOptions,
    Workspace,
)

if TYPE_CHECKING:
    from lfm2gguf.calibration import Calibrated
    from lfm2gguf.conversion import Conversion
    from lfm2gguf.verification import ReferenceModel
    from lfm2gguf_cli.console import Display


@grouped
def convert(
    source: Source,
    storage: StorageOptions,
    *,
    budgets: BudgetOptions,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Round the weights for what each layer sees: the same types and size, less loss.",
        ),
    ] = False,
    material: MaterialOptions,
    own_text: OwnText = None,
    workspace: Workspace = None,
    output: Output = None,
    mmproj: Annotated[
        bool,
        typer.Option(
            "--mmproj",
            help="Write the projector (mmproj-NAME-TYPE.gguf) of a vision or audio model instead "
            "of its text model; llama.cpp needs both files.",
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
    from lfm2gguf.conversion import plan_quantization
    from lfm2gguf_cli.calibrating import exit_unless_better, finish_calibration
    from lfm2gguf_cli.conversions import finish, is_gguf, refuse_beside
    from lfm2gguf_cli.measured import Passes
    from lfm2gguf_cli.tables import show_notes

    display = saying.display()
    opening = {"revision": revision, "pre": pre, "lora": lora}
    passes = Passes(
        source, output, storage, material, budgets, calibrate, own_text, workspace, opening
    )
    if is_gguf(source):
        refuse_beside(source, mmproj=mmproj, lora=lora, target=target, model_name=model_name,
                      pre=pre, revision=revision, verify=verify)  # fmt: skip
        passes.refuse(f"{source} is a GGUF file; this is for a checkpoint's folder")
        display.note(f"{source} is a GGUF file: quantized, as lfm2gguf quantize does")
        finish(display, plan_quantization(source, output, storage.recipe()), jobs, force, dry_run)
        return
    if mmproj or target:
        passes.refuse(
            "this follows what a text model predicts, and neither a projector nor a draft"
        )
    if verify and mmproj:
        raise OptionError("--verify compares what a text model predicts; a projector predicts none")
    passes.check_options()
    if not dry_run:
        passes.check_targets(overwrite=force)
    recipe, more = passes.recipe(display)
    plan, calibration = passes.plan(recipe, projector=mmproj, target_model=target, name=model_name)
    reference: ReferenceModel | None = None
    if verify and not dry_run:  # what opening it raises is raised before the files are there
        from lfm2gguf.verification import open_reference

        reference = open_reference(source, revision, lora)
    show_notes(display, plan.notes, plan.left_out)
    judged = reference is not None
    made: Calibrated | None = None
    written: Conversion | None
    if calibration and not dry_run:
        made = finish_calibration(display, calibration, more, judged=judged, workspace=workspace,
                                  jobs=jobs, overwrite=force)  # fmt: skip
        more["calibration"], written = made.to_json(), made.conversion
    else:
        written = finish(display, plan, jobs, force, dry_run, judged=judged, more=more)
    if written and reference:
        _judge(display, written, reference, more)
    if made:
        exit_unless_better(display, made)


def _judge(
    display: Display, written: Conversion, reference: ReferenceModel, more: Mapping[str, Any]
) -> None:
    from lfm2gguf.verification import verify as verify_files
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import written_json
    from lfm2gguf_cli.verdicts import conclude, report_json, show_verdicts

    files = [file.path for file in written.files]
    with progress_of(display) as progress:
        results = verify_files(files, reference, progress=progress)
    display.gives(lambda: {**written_json(written), **more, "verification": report_json(results)})
    show_verdicts(display, results)
    if failed := [result.candidate for result in results if not result.passed]:
        display.note(f"kept, but it did not pass: {', '.join(failed)}")
    conclude(display, results, files)
