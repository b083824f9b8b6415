"""The files of a run: what is judged, and where reports go."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lfm2gguf import rendering
from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.rendering import Targets, write_targets
from lfm2gguf.verification.material.models import is_model
from lfm2gguf.verification.report import plot
from lfm2gguf.verification.report.data import dumps
from lfm2gguf.verification.report.junit import junit
from lfm2gguf.verification.report.markdown import markdown
from lfm2gguf.verification.report.page import page
from lfm2gguf.verification.verdict.result import Verification

LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
WRITERS: dict[str, Callable[[Sequence[Verification]], str | bytes]] = {
    "json": dumps,
    "baseline": dumps,
    "junit": junit,
    "markdown": markdown,
    "html": page,
}


def candidates(path: Path) -> list[Path]:
    """Return a file, or all models of a folder, largest first: the quantization ladder.

    Of a model that is split over several files the first represents all. Importance matrices,
    projectors and adapters, which are GGUF files too, are passed over.

    Raises:
        GGUFError: the folder has none.

    """
    if not path.is_dir():
        return [path]
    whole = [
        file
        for file in path.glob("*.gguf")
        if not LATER_PART.search(file.name) and _may_be_model(file)
    ]
    found = sorted(whole, key=lambda file: (-file.stat().st_size, file.name))
    if not found:
        raise GGUFError(f"{path}: no .gguf file in this folder")
    return found


def _may_be_model(path: Path) -> bool:
    """Whether to judge it; what cannot be read is told of then."""
    try:
        return is_model(GGUFFile.open(path))
    except GGUFError:
        return True


def check_targets(targets: Targets) -> None:
    """Refuse reports that could not be written, before anything is computed.

    Raises:
        OutputError: a folder is missing or cannot be written, or the target is a folder.
        OptionError: a plot is neither .svg nor .png.
        MissingDependencyError: a plot is PNG, and matplotlib is not installed.

    """
    rendering.check_targets(targets)
    if path := targets.get("plot"):
        plot.check_suffix(path)


def write_reports(results: Sequence[Verification], targets: Targets) -> str:
    """Write each report that is asked for: json, baseline, junit, markdown, html or plot.

    Return the text that belongs on standard output.

    Raises:
        OutputError: a file cannot be written, or the disk is full.

    """

    def content(kind: str, path: Path) -> str | bytes:
        return plot.draw(results, path.suffix) if kind == "plot" else WRITERS[kind](results)

    return write_targets(targets, content)
