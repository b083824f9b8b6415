"""The first load of a file, in a child process: a crash there is an error here.

What was loaded once is remembered in the user's cache by its path, size, time, header, and the
version of the library, so that the same file is not tried again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.loadable import child
from lfm2gguf.members import is_retrieval
from lfm2gguf.storage import cache_folder, stamps

VARIABLE = "LFM2GGUF_TRIAL"
OFF = ("0", "off", "no", "false")
FOLDER, MOST = "loaded", 500  # entries of no bytes
SECONDS, BYTES_A_SECOND = 120.0, 20e6  # what a load may take: a constant, and a slow disk
# The child runs on the CPU: starting a GPU's driver would take longer than all the rest. And
# ggml_abort starts a debugger for a backtrace, and may wait for it for ever.
ENVIRONMENT = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "-1") | {
    "GGML_VK_VISIBLE_DEVICES": "",
    "GGML_NO_BACKTRACE": "1",
}
# "ggml.c:1234: GGML_ASSERT(...) failed", and what C++ says of an exception that nobody catches.
ASSERTED = re.compile(r"[\w.-]+\.(?:c|cpp|h|cu|m):\d+: .+|what\(\): .+")


def tried(file: GGUFFile, projector: Path | None = None) -> None:
    """Load a file in a child process, unless that went well before.

    Raises:
        GGUFError: the child did not survive it.

    """
    if os.environ.get(VARIABLE, "").lower() in OFF or not sys.executable:
        return
    entry = cache_folder() / FOLDER / _key(file, projector)
    if entry.exists():
        return
    _load(file, projector)
    _remember(entry)


def _key(file: GGUFFile, projector: Path | None) -> str:
    """Return a digest of what would be another load if it changed."""
    header = min((t.offset for t in file.tensors.values() if t.file == file.path), default=0)
    with file.path.open("rb") as opened:
        found = hashlib.sha256(opened.read(header))
    for stamp in stamps([*file.files, *([projector] if projector else [])]):
        found.update(f"{stamp.path.resolve()!r} {stamp.size} {stamp.modified}\n".encode())
    found.update(_version().encode())
    return found.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _load(file: GGUFFile, projector: Path | None) -> None:
    request = {
        "path": sys.path,
        "file": os.fspath(file.path),
        "projector": projector and os.fspath(projector),
        "embeddings": [False, True] if is_retrieval(file, file.tensors) else [False],
    }
    command = [sys.executable, "-I", "-S", child.__file__, json.dumps(request)]
    seconds = SECONDS + sum(info.nbytes for info in file.tensors.values()) / BYTES_A_SECOND
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | ENVIRONMENT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _error(file, projector, f"did not load it in {seconds:.0f} s") from error
    except OSError:  # no process can be started here: the load itself has to show it
        return
    if done.returncode < 0 or done.returncode > 255:  # a signal; on Windows an exception's code
        raise _error(file, projector, f"ends the process with it ({_last_words(done)})")


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the line in which the library says why it ended, or what ended it."""
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        if said := ASSERTED.search(line):
            return said[0].strip()
    return signal.Signals(-done.returncode).name if done.returncode < 0 else str(done.returncode)


def _error(file: GGUFFile, projector: Path | None, what: str) -> GGUFError:
    names = f"{file.path} with {projector}" if projector else str(file.path)
    return GGUFError(
        f"{names}: llama.cpp {what}; the file is damaged or hostile: "
        "download or convert it again, and see what `lfm2gguf doctor` says of it"
    )


def _remember(entry: Path) -> None:
    """Note that a load went well; a folder that cannot be written is not an error."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
        entries = sorted(entry.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for old in entries[:-MOST]:
            old.unlink(missing_ok=True)
    except OSError:
        return
