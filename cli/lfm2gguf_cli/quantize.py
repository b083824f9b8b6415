"""``lfm2gguf quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import DryRun, Force, Jobs, Output, Saying, StorageOptions


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

    display, recipe = saying.display(), storage.recipe()
    plan = plan_quantization(source, output, recipe, allow_requantize=allow_requantize)
    finish(display, plan, jobs, force, dry_run)
