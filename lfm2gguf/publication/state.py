"""What is known of a folder that is being filled: a run that was stopped goes on from there.

It stands in a folder of its own in the one that is published, which is not uploaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfm2gguf.errors import OutputError
from lfm2gguf.json_text import parse_json
from lfm2gguf.storage import write_whole

HIDDEN = ".lfm2gguf"


@dataclass(frozen=True)
class Folder:
    """A folder that is filled with what is published."""

    path: Path

    @property
    def workspace(self) -> Path:
        """Where unfinished work lies."""
        return self.path / HIDDEN / "work"

    def begin(self, key: str, *, overwrite: bool = False) -> dict[str, Any] | None:
        """Make the folder, or take it up again; return what an earlier run finished.

        Raises:
            OutputError: the folder holds something else, or cannot be written.

        """
        state = self._read()
        if state is None and self.path.is_dir() and any(self.path.iterdir()) and not overwrite:
            raise OutputError(
                f"{self.path}: is a folder that holds something else; give another (--output), or "
                "overwrite=True (--force)"
            )
        if state and state.get("key") != key and not overwrite:
            raise OutputError(
                f"{self.path}: holds files that were made otherwise (another source, version or "
                "options); give another folder (--output), or overwrite=True (--force)"
            )
        if state and state.get("key") == key and not overwrite and self._is_whole(state):
            return state
        if state and state.get("key") != key:
            shutil.rmtree(self.path / HIDDEN, ignore_errors=True)
        try:
            self.workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be made ({error.strerror})") from error
        self._write({"key": key})
        return None

    def finish(self, key: str, files: Sequence[Path], result: dict[str, Any]) -> None:
        """Say what was made, and free what the work took."""
        made = {file.name: _stamp(file) for file in files}
        self._write({"key": key, "files": made, "result": result})
        shutil.rmtree(self.workspace, ignore_errors=True)

    def _is_whole(self, state: dict[str, Any]) -> bool:
        files = state.get("files")
        if not files:
            return False
        there = {name for name in files if (self.path / name).is_file()}
        # The card may have been edited: it is the one file that is a person's as well.
        return there == set(files) and all(
            stamp == _stamp(self.path / name)
            for name, stamp in files.items()
            if name != "README.md"
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            found = parse_json((self.path / HIDDEN / "state.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, state: dict[str, Any]) -> None:
        target = self.path / HIDDEN / "state.json"
        write_whole(target, json.dumps(state, indent=1), overwrite=True)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
