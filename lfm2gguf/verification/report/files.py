"""The files of a run: what is judged, and where reports go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lfm2gguf.errors import GGUFError, OutputError
from lfm2gguf.verification.report import plot
from lfm2gguf.verification.report.data import dumps, write_report
from lfm2gguf.verification.report.junit import junit
from lfm2gguf.verification.report.markdown import markdown
from lfm2gguf.verification.verdict.result import Verification

STANDARD_OUTPUT = Path("-")
LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
WRITERS: dict[str, Callable[[Sequence[Verification]], str | bytes]] = {
    "json": dumps,
    "baseline": dumps,
    "junit": junit,
    "markdown": markdown,
}


def candidates(path: Path) -> list[Path]:
    """Return a file, or all GGUF files of a folder, largest first: the quantization ladder.

    Of a model that is split over several files the first stands for all.

    Raises:
        GGUFError: a folder has none.

    """
    if not path.is_dir():
        return [path]
    whole = [file for file in path.glob("*.gguf") if not LATER_PART.search(file.name)]
    found = sorted(whole, key=lambda file: (-file.stat().st_size, file.name))
    if not found:
        raise GGUFError(f"{path}: no .gguf file in this folder")
    return found


def check_targets(targets: Mapping[str, Path | None]) -> None:
    """Refuse reports that could not be written, before anything is computed.

    Raises OutputError for a folder that is not there, OptionError or MissingDependencyError
    for a picture that cannot be drawn.
    """
    for name, path in targets.items():
        if path is None or path == STANDARD_OUTPUT:
            continue
        if path.is_dir() or not path.parent.is_dir():
            raise OutputError(f"cannot write --{name} {path}: its folder must exist")
        if name == "plot":
            plot.check_suffix(path)


def write_reports(results: Sequence[Verification], targets: Mapping[str, Path | None]) -> None:
    """Write each report that is asked for: json, baseline, junit, markdown or plot."""
    for name, path in targets.items():
        if path is None:
            continue
        content = plot.draw(results, path.suffix) if name == "plot" else WRITERS[name](results)
        if path == STANDARD_OUTPUT:
            sys.stdout.write(content if isinstance(content, str) else content.decode("utf-8"))
        else:
            write_report(path, content)
