"""What convert and quantize do with a plan: show it or write it, and say what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfm2gguf.conversion import Conversion, ConversionPlan, Draft
from lfm2gguf.errors import OptionError
from lfm2gguf_cli.console import Display
from lfm2gguf_cli.progress import progress_of
from lfm2gguf_cli.tables import show_plan, show_written


def is_gguf(source: str) -> bool:
    """Say whether a source is a GGUF file, by its name."""
    return source.lower().endswith(".gguf") and Path(source).is_file()


def refuse_beside(source: str, **options: object) -> None:
    """Refuse what a checkpoint needs where a GGUF file is given."""
    if given := [name for name, value in options.items() if value]:
        flag = f"--{given[0].replace('_', '-')}"
        raise OptionError(f"{source}: is a GGUF file; {flag} is for a checkpoint's folder")


def finish(
    display: Display,
    plan: ConversionPlan,
    jobs: int | None,
    force: bool,
    dry_run: bool,
    *,
    judged: bool = False,
    more: Mapping[str, Any] | None = None,
) -> Conversion | None:
    """Show a plan, or write it; return what was written.

    ``judged`` files are told of twice: here to a person, and later with their verdicts. Data gets
    the keys ``more``.
    """
    plan.check_importance()
    if dry_run:
        show_plan(display, plan, more)
        display.hint("next: the same without --dry-run")
        return None
    with progress_of(display) as progress:
        written = plan.write(jobs=jobs, overwrite=force, progress=progress)
    show_written(display, written, more, data=not judged)
    if not judged:
        _next(display, plan.drafts[0], written)
    return written


def _next(display: Display, draft: Draft, written: Conversion) -> None:
    """Say what the file is for."""
    path = written.files[0].path
    if "general.type" in draft.metadata and draft.metadata["general.type"].value == "mmproj":
        display.next("lfm2gguf", "run", "MODEL.gguf", "--mmproj", path, "--image", "PICTURE.jpg")
    elif (
        "tokenizer.ggml.model" not in draft.metadata
        or draft.metadata["general.architecture"].value == "dflash"  # which does not run alone
    ):
        display.next("lfm2gguf", "inspect", path)
    elif any(key.endswith(".pooling_type") for key in draft.metadata):
        display.next("lfm2gguf", "serve", path)
    else:
        display.next("lfm2gguf", "run", path)
