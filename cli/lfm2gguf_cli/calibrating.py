"""What calibrate and ``convert --calibrate`` share: the run, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lfm2gguf.calibration import Calibrated, CalibrationPlan
    from lfm2gguf_cli.console import Display

NOT_BETTER = 1


def run_calibration(display: Display, plan: CalibrationPlan, **settings: Any) -> Calibrated:
    """Calibrate, and name the experts that few tokens reached."""
    from lfm2gguf_cli.progress import progress_of

    with progress_of(display) as progress:
        made = plan.write(progress=progress, **settings)
    for name in made.few_tokens:
        display.note(f"{name}: fewer tokens than columns; use more text")
    return made


def show_judgement(display: Display, made: Calibrated) -> None:
    """Say how the file compares with the plain one."""
    judged = made.judgement
    if not display.json and not display.quiet:
        display.line(
            f"mean KL divergence on {judged.tokens} tokens kept aside: {judged.calibrated:.6f}, "
            f"and {judged.plain:.6f} of the plain file ({judged.ratio:.2f})"
        )


def exit_unless_better(display: Display, made: Calibrated) -> None:
    """End with 1 where the file is not nearer to the checkpoint than the plain one."""
    if not made.better:
        display.complain("not better than the plain file on the text kept aside; use more text")
        raise typer.Exit(NOT_BETTER)
