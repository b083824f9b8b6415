"""``lfm2gguf quantize``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import DryRun, Force, Jobs, Output, Saying, StorageOptions

if TYPE_CHECKING:
    from lfm2gguf.conversion import ConversionPlan, Recipe


@grouped
def quantize(
    source: Annotated[
        Path, typer.Argument(metavar="IN.gguf", help="A GGUF file of F32, F16 or BF16 weights.")
    ],
    storage: StorageOptions,
    *,
    output: Output = None,
    allow_requantize: Annotated[
        bool, typer.Option(help="Take a quantized file too; quality is lost twice.")
    ] = False,
    jobs: Jobs = None,
    force: Force = False,
    dry_run: DryRun = False,
    saying: Saying,
) -> None:
    """Quantize a GGUF file, whoever wrote it.

    Example: lfm2gguf quantize LFM2-1.2B-BF16.gguf -t Q4_K_M
    """
    from lfm2gguf.conversion import plan_quantization
    from lfm2gguf_cli.conversions import finish
    from lfm2gguf_cli.measured import compute_matrix
    from lfm2gguf_cli.tables import show_notes

    def plan(recipe: Recipe) -> ConversionPlan:
        return plan_quantization(source, output, recipe, allow_requantize=allow_requantize)

    display, recipe = saying.display(), storage.recipe()
    if storage.computes_matrix:
        early = plan(replace(recipe, calibrated=True))
        early.check_importance()
        if not dry_run:
            early.check_targets(overwrite=force)  # before the work
        recipe = storage.recipe(compute_matrix(display, source))
    files = plan(recipe)
    show_notes(display, files.notes, files.left_out)
    finish(display, files, jobs, force, dry_run)
