"""``lfm2gguf convert``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
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
    Output,
    Pre,
    Revision,
    Saying,
    Source,
    StorageOptions,
    Workspace,
)

if TYPE_CHECKING:
    from lfm2gguf.allocation import Budget
    from lfm2gguf.calibration import CalibrationPlan
    from lfm2gguf.conversion import Conversion, ConversionPlan, Recipe
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
    workspace: Workspace = None,
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
    from lfm2gguf_cli.calibrating import exit_unless_better, run_calibration, show_judgement
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_notes, show_plan, show_written

    display = saying.display()
    if mmproj:
        _refuse_for_projectors(storage, budgets, calibrate=calibrate, verify=verify)
    if calibrate and storage.imatrix is not None:
        raise OptionError("--imatrix and --calibrate: calibration sums more than a matrix holds; "
                          "leave --imatrix out")  # fmt: skip
    job = _Job(source, output, storage, material, {"revision": revision, "pre": pre, "lora": lora})
    if not dry_run:
        job.check_targets(budgets, overwrite=force, calibrated=calibrate)
    recipe = replace(job.recipe(display), calibrated=calibrate)
    more: dict[str, Any] = {}
    if budget := budgets.budget():
        recipe, more["allocation"] = job.allocated(display, budget, budgets.device, recipe)
    calibration = job.calibration(recipe) if calibrate else None
    plan = calibration.files if calibration else job.plan(recipe, mmproj=mmproj)
    reference = job.reference(plan) if verify else None  # what it would raise is raised now
    show_notes(display, plan.notes, plan.left_out)
    if dry_run:
        show_plan(display, plan, more)
        return
    made = None
    if calibration:
        made = run_calibration(
            display, calibration, workspace=workspace, jobs=jobs, overwrite=force
        )
        written, more["calibration"] = made.conversion, made.to_json()
    else:
        with progress_of(display) as progress:
            written = plan.write(jobs=jobs, overwrite=force, progress=progress)
    if reference is None or not display.json:  # which comes as one object, at the end
        show_written(display, written, more)
    if made is not None:
        show_judgement(display, made)
    if reference is not None:
        _verify(display, written, reference, more)
    if made is not None:
        exit_unless_better(display, made)


@dataclass(frozen=True)
class _Job:
    """What is converted, and what of it takes more than one pass."""

    source: str
    output: Path | None
    storage: StorageOptions
    material: MaterialOptions
    opening: dict[str, Any]

    def check_targets(self, budgets: BudgetOptions, *, overwrite: bool, calibrated: bool) -> None:
        """Refuse what stands in the way before the work that comes first."""
        from lfm2gguf.storage import check_target

        budget = budgets.budget()
        if not (budget or calibrated or self.storage.computes_matrix):
            return
        label = None if budget is None else str(budget)
        early = replace(self.storage.recipe(), calibrated=True, label=label)
        for draft in self.plan(early).drafts:
            for file in draft.files:
                check_target(file.path, overwrite=overwrite)

    def recipe(self, display: Display) -> Recipe:
        """Return how weights are stored; compute the importance matrix if it is asked for."""
        if not self.storage.computes_matrix:
            return self.storage.recipe()
        from lfm2gguf.calibration import collect_imatrix
        from lfm2gguf_cli.progress import progress_of

        opening = {key: value for key, value in self.opening.items() if key != "pre"}
        with progress_of(display) as progress:
            matrix = collect_imatrix(
                self.source, progress=progress, **opening, **self.material.arguments()
            )
        return self.storage.recipe(matrix)

    def allocated(
        self, display: Display, budget: Budget, device: str | None, recipe: Recipe
    ) -> tuple[Recipe, dict[str, Any]]:
        """Choose the tensors' types, and show them; return the recipe, and the choice as JSON."""
        from lfm2gguf.allocation import DEFAULT_DEVICE, allocate
        from lfm2gguf_cli.progress import progress_of
        from lfm2gguf_cli.tables import show_allocation

        with progress_of(display) as progress:
            allocation = allocate(
                self.source, budget, recipe, device=device or DEFAULT_DEVICE, progress=progress,
                **self.opening, **self.material.arguments(),
            )  # fmt: skip
        show_allocation(display, allocation)
        return allocation.recipe, allocation.to_json()

    def plan(self, recipe: Recipe, *, mmproj: bool = False) -> ConversionPlan:
        """Decide the files."""
        from lfm2gguf.conversion import plan

        return plan(self.source, self.output, recipe, projector=mmproj, **self.opening)

    def calibration(self, recipe: Recipe) -> CalibrationPlan:
        """Decide a calibrated file."""
        from lfm2gguf.calibration import plan_calibration

        return plan_calibration(
            self.source, self.output, recipe, **self.opening, **self.material.arguments()
        )

    def reference(self, plan: ConversionPlan) -> ReferenceModel:
        """Open what the files will be compared with."""
        from lfm2gguf.verification import TYPE_LIMITS, open_reference

        for draft in plan.drafts:
            if draft.type.name not in TYPE_LIMITS:
                raise OptionError(
                    f"--verify has no limits for {draft.type.name} yet; convert without it, then "
                    "verify with --max-ppl-increase and the other limits"
                )
        return open_reference(self.source, self.opening["revision"], self.opening["lora"])


def _refuse_for_projectors(
    storage: StorageOptions, budgets: BudgetOptions, *, calibrate: bool, verify: bool
) -> None:
    """A projector predicts no text, which all of this is about."""
    asked = {
        "--verify": verify,
        "--calibrate": calibrate,
        "--imatrix auto": storage.computes_matrix,
        "--size, --bpw and --kld": budgets.budget() is not None,
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise OptionError(f"{option}: compares what a text model predicts; a projector "
                              "(--mmproj) predicts none")  # fmt: skip


def _verify(
    display: Display, written: Conversion, reference: ReferenceModel, more: dict[str, Any]
) -> None:
    """Compare each file with the checkpoint, and exit with 1 where one fails."""
    from lfm2gguf.verification import verify
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_written
    from lfm2gguf_cli.verdicts import exit_on_failure, report_json, show_verdicts

    files = [file.path for file in written.files]
    with progress_of(display) as progress:
        results = verify(files, reference, progress=progress)
    if display.json:
        show_written(display, written, {**more, "verification": report_json(results)})
    else:
        show_verdicts(display, results)
    if failed := [result.candidate for result in results if not result.passed]:
        display.note(f"kept, but it did not pass: {', '.join(failed)}")
    exit_on_failure(results)
