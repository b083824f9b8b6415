"""``lfm2gguf calibrate``."""

from __future__ import annotations

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import (
    Force,
    Jobs,
    Lora,
    MaterialOptions,
    Output,
    OwnText,
    Pre,
    Revision,
    Saying,
    Source,
    Type,
    Workspace,
    own_text_arguments,
)


@grouped
def calibrate(
    source: Source,
    *,
    type: Type = "Q4_K_M",
    output: Output = None,
    material: MaterialOptions,
    own_text: OwnText = None,
    workspace: Workspace = None,
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
    It is convert --calibrate, which has more options.
    """
    from lfm2gguf.calibration import plan_calibration
    from lfm2gguf_cli.calibrating import exit_unless_better, finish_calibration

    display = saying.display()
    plan = plan_calibration(
        source, output, type, **material.arguments(), revision=revision, pre=pre, lora=lora,
        **own_text_arguments(own_text),
    )  # fmt: skip
    made = finish_calibration(display, plan, {}, workspace=workspace, jobs=jobs, overwrite=force)
    exit_unless_better(display, made)
    file = made.conversion.files[0].path
    display.next("lfm2gguf", "verify", file, "--reference", source)
