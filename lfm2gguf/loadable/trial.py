"""The first load of a file, in a child process: a crash there is an error here.

What was loaded once is remembered in the user's cache by its path, size, time, header, and the
versions of the library and of the rules here, so that the same file is not tried again. The child
works beside its caller, which goes on as far as it can: it reads the header while the child loads
the library, and loads the file itself while the child computes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from lfm2gguf.caches import cache_folder
from lfm2gguf.errors import GGUFError, TensorError
from lfm2gguf.llamacpp import bindings_version
from lfm2gguf.loadable import child
from lfm2gguf.members import is_retrieval
from lfm2gguf.storage import stamps
from lfm2gguf.version import __version__

if TYPE_CHECKING:
    from lfm2gguf.gguf_file import GGUFFile

VARIABLE = "LFM2GGUF_TRIAL"
OFF = ("0", "off", "no", "false")
FOLDER, MOST = "loaded", 500  # entries: a digest, and how many bytes of the header are in it
SECONDS, BYTES_A_SECOND = 120.0, 20e6  # what a load may take: a constant, and a slow disk
# The child runs on the CPU: starting a GPU's driver would take longer than all the rest. And
# ggml_abort starts a debugger for a backtrace, and may wait for it for ever.
ENVIRONMENT = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "-1") | {
    "GGML_VK_VISIBLE_DEVICES": "",
    "GGML_NO_BACKTRACE": "1",
}
# "ggml.c:1234: GGML_ASSERT(...) failed", and what C++ says of an exception that nobody catches.
ASSERTED = re.compile(r"[\w.-]+\.(?:c|cpp|h|cu|m):\d+: .+|what\(\): .+")


class Trial:
    """A file's first load, if it is one; without that nothing is started, and nothing waited for.

    ``knows`` says whether it is one, ``start`` that the header of one is sound, and ``loaded`` and
    ``computed`` wait. They raise
    :class:`GGUFError` where the child did not survive the file.
    """

    def __init__(self, path: Path, projector: Path | None = None) -> None:
        self._path, self._projector = path, projector
        self._child: _Child | None = None
        self._note = ""
        self._entry = _entry(path, projector)  # where this file is remembered
        if self._entry and not self._entry.exists():
            self._child = _Child.started()

    def knows(self, file: GGUFFile) -> bool:
        """Return whether the file with this header went well before: it kept all rules then."""
        if self._entry is None:
            return False
        # The header is no part of the entry's name: whether a child will be needed has to be
        # known before it is read.
        header = min((t.offset for t in file.tensors.values() if t.file == file.path), default=0)
        self._note = f"{_digest(file.files, file.path, header)} {header}"
        return self._child is None and _text(self._entry) == self._note

    def start(self, file: GGUFFile) -> None:
        """Let the child load a file that is not known."""
        if self._entry is None:
            return
        self._child = self._child or _Child.started()
        if self._child:
            embeddings = [False, True] if is_retrieval(file, file.tensors) else [False]
            projector = self._projector and os.fspath(self._projector)
            request = {"file": os.fspath(file.path), "projector": projector}
            size = sum(info.nbytes for info in file.tensors.values())
            self._child.give({**request, "embeddings": embeddings}, SECONDS + size / BYTES_A_SECOND)

    def loaded(self) -> None:
        """Wait until the child has loaded the file."""
        if self._child:
            self._wait(child.LOADED)

    def computed(self) -> None:
        """Wait until the child has computed with the file, and remember that."""
        if self._child and self._entry:
            self._wait(child.COMPUTED)
            _remember(self._entry, self._note)

    def _wait(self, word: bytes) -> None:
        if self._child and (what := self._child.failed_before(word)):
            names = f"{self._path} with {self._projector}" if self._projector else str(self._path)
            raise GGUFError(
                f"{names}: llama.cpp {what}; the file is damaged or hostile: download or convert "
                "it again, and see what `lfm2gguf doctor` says of it"
            )

    def close(self) -> None:
        """End the child, if it still runs."""
        if self._child:
            self._child.close()

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_known(path: Path, projector: Path | None = None) -> bool:
    """Return whether a file, of which nothing has been read yet, was loaded once and went well.

    Of a file that is split it is not known which others belong to it.
    """
    entry = _entry(path, projector)
    note = _text(entry) if entry else ""
    _, _, header = note.partition(" ")
    with contextlib.suppress(TensorError, OSError, ValueError):
        return note == f"{_digest([path], path, int(header))} {header}"
    return False


class _Child:
    """The child process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors
        self._seconds, self._late = 0.0, False
        self._timer: threading.Timer | None = None

    @classmethod
    def started(cls) -> _Child | None:
        """Start it; None where no process can be: the load itself has to show what comes of it."""
        command = [sys.executable, "-I", "-S", child.__file__, json.dumps(sys.path)]
        try:
            errors = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe would have to be emptied
        except OSError:
            return None
        try:
            process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | ENVIRONMENT,
            )
        except OSError:
            errors.close()
            return None
        return cls(process, errors)

    def give(self, request: dict[str, object], seconds: float) -> None:
        """Name the file, for whose load there are so many seconds."""
        assert self._process.stdin
        self._seconds = seconds
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()
        with contextlib.suppress(OSError):  # it has ended: that will be seen
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def failed_before(self, word: bytes) -> str:
        """Wait until the child says so, or ends; return how it failed, empty if it did not."""
        assert self._process.stdout
        for line in iter(self._process.stdout.readline, b""):
            if line == word:
                return ""
        code = self._process.wait()
        if self._late:
            return f"did not load it in {self._seconds:.0f} s"
        if 0 <= code <= 255:
            return ""
        # a signal; on Windows an exception's code
        return f"ends the process with it ({self._last_words(code)})"

    def _last_words(self, code: int) -> str:
        """Return the line in which the library says why it ended, or what ended it."""
        self._errors.seek(0)
        for line in self._errors:
            if said := ASSERTED.search(line.decode("utf-8", "replace")):
                return said[0].strip()
        return signal.Signals(-code).name if code < 0 else str(code)

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def close(self) -> None:
        """End it, though it be still freeing what it computed with, and wait for that."""
        if self._timer:
            self._timer.cancel()
            self._timer.join()
        self._process.kill()
        self._process.communicate()  # closes the pipes
        self._errors.close()


def _entry(path: Path, projector: Path | None) -> Path | None:
    """Return where a file is remembered; None where it is not tried, or is not there."""
    if os.environ.get(VARIABLE, "").lower() in OFF or not sys.executable:
        return None
    files = [path, *([projector] if projector else [])]
    if not all(file.is_file() for file in files):
        return None  # the caller has the words for it
    with contextlib.suppress(TensorError):  # gone in this moment
        return cache_folder() / FOLDER / _digest(files)
    return None


def _digest(files: Iterable[Path], first: Path | None = None, header: int = 0) -> str:
    """Return a digest of what would be another load if it changed: files and a header."""
    found = hashlib.sha256()
    if first:
        with first.open("rb") as opened:
            found.update(opened.read(header))
    for stamp in stamps(files):
        found.update(f"{stamp.path.resolve()!r} {stamp.size} {stamp.modified}\n".encode())
    found.update(f"{bindings_version()} {__version__}".encode())
    return found.hexdigest()


def _text(entry: Path) -> str:
    try:
        return entry.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _remember(entry: Path, note: str) -> None:
    """Note that a load went well; a folder that cannot be written is not an error."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_text(note, encoding="ascii")
        entries = sorted(entry.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for old in entries[:-MOST]:
            old.unlink(missing_ok=True)
    except OSError:
        return
