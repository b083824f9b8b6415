"""What calibrate and ``convert --calibrate`` share: the run, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lfm2gguf.calibration import Calibrated, CalibrationPlan
    from lfm2gguf_cli.console import Display

NOT_BETTER = 1
SHOWN = 3  # names of experts; data has all


def finish_calibration(
    display: Display,
    plan: CalibrationPlan,
    more: Mapping[str, Any],
    *,
    judged: bool = False,
    **settings: Any,
) -> Calibrated:
    """Calibrate, write, and say how the file compares with the plain one.

    ``judged`` files are told of twice: here to a person, and later with their verdicts. Data gets
    the keys ``more``.
    """
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.tables import show_written

    with progress_of(display) as progress:
        made = plan.write(progress=progress, **settings)
    if few := made.few_tokens:
        names = ", ".join(few[:SHOWN]) + (", ..." if len(few) > SHOWN else "")
        display.note(
            f"{len(few)} matrices saw fewer tokens than they have columns: use more text; experts "
            f"are rounded in part for what their layer sees ({names})"
        )
    told = {**more, "calibration": made.to_json()}
    show_written(display, made.conversion, told, data=not judged)
    judgement = made.judgement
    if not display.json:
        unit = "tokens" if judgement.measure.key == "kld" else "vectors"
        display.line(
            f"mean {judgement.measure.words} on {judgement.tokens} {unit} kept aside: "
            f"{judgement.calibrated:.6f}, and {judgement.plain:.6f} of the plain file "
            f"({judgement.ratio:.2f})"
        )
    return made


def exit_unless_better(display: Display, made: Calibrated) -> None:
    """End with 1 where the file is not nearer to the checkpoint than the plain one."""
    if not made.better:
        display.complain("not better than the plain file on the text kept aside; use more text")
        raise typer.Exit(NOT_BETTER)
