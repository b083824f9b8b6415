"""Where reports go: each to a file that appears whole, or to standard output.

Only the command line writes to standard output; what belongs there is handed back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lfm2gguf.errors import OutputError
from lfm2gguf.storage import check_target, write_whole

STANDARD_OUTPUT = Path("-")
Targets = Mapping[str, Path | None]  # by the kind of report; None: not asked for


def check_targets(targets: Targets) -> None:
    """Refuse reports that could not be written, before anything is computed.

    Raises:
        OutputError: a folder is missing or cannot be written, or the target is a folder.

    """
    for kind, path in targets.items():
        if path is not None and path != STANDARD_OUTPUT:
            try:
                check_target(path, overwrite=True)
            except OutputError as error:
                raise OutputError(f"{error} (the {kind} report)") from error


def write_targets(targets: Targets, render: Callable[[str, Path], str | bytes]) -> str:
    """Write each report that is asked for; return the text that belongs on standard output.

    ``render`` gives the content of a kind of report that goes to a path.

    Raises:
        OutputError: a file cannot be written, or the disk is full.

    """
    printed = ""
    for kind, path in targets.items():
        if path is None:
            continue
        content = render(kind, path)
        if path != STANDARD_OUTPUT:
            write_whole(path, content, overwrite=True)
        else:
            printed += content if isinstance(content, str) else content.decode("utf-8")
    return printed
