"""``lfm2gguf quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.options import (
    DryRun,
    EmbeddingType,
    ExcludeWeights,
    Force,
    IncludeWeights,
    Jobs,
    Json,
    LeaveOutput,
    Output,
    OutputType,
    Pure,
    Quiet,
    SplitMaxSize,
    TensorTypes,
    Types,
    read_matrix,
)


def quantize(
    source: Annotated[
        Path, typer.Argument(metavar="IN.gguf", help="A GGUF file of F32, F16 or BF16 weights.")
    ],
    type: Types = ["Q4_K_M"],  # noqa: B006
    output: Output = None,
    jobs: Jobs = None,
    force: Force = False,
    allow_requantize: Annotated[
        bool, typer.Option(help="Take a quantized file too; quality is lost twice.")
    ] = False,
    dry_run: DryRun = False,
    split_max_size: SplitMaxSize = None,
    pure: Pure = False,
    leave_output_tensor: LeaveOutput = False,
    output_tensor_type: OutputType = None,
    token_embedding_type: EmbeddingType = None,
    tensor_type: TensorTypes = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix, .gguf or .dat: see imatrix.")
    ] = None,
    include_weights: IncludeWeights = None,
    exclude_weights: ExcludeWeights = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Quantize a GGUF file, whoever wrote it.

    Example: lfm2gguf quantize LFM2-1.2B-BF16.gguf -t Q4_K_M
    """
    from lfm2gguf.conversion import Recipe, plan_quantization
    from lfm2gguf_cli.console import Display
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_plan, show_written

    display = Display(quiet=quiet, json=json)
    matrix = read_matrix(imatrix, include_weights, exclude_weights)
    recipe = Recipe(
        type, split_max_size, matrix, pure, leave_output_tensor,
        output_tensor_type, token_embedding_type, tuple(tensor_type or ()),
    )  # fmt: skip
    plan = plan_quantization(source, output, recipe, allow_requantize=allow_requantize)
    if dry_run:
        show_plan(display, plan)
        return
    with progress_of(display) as progress:
        written = plan.write(jobs=jobs, overwrite=force, progress=progress)
    show_written(display, written)
