"""The reference's final hidden states on disk, so that a second run need not compute them.

Kept are the exact float32 states before the head: 4 * hidden bytes for each scored
position (a 1.2B model and 16 chunks of 512: 33 MB), where the logits would be 65,536 floats.
The head is applied again at each run. Nothing is rounded, so a cached run decides as a fresh
one does.

The key is a SHA-256 over the contents of the checkpoint (not names or times: a retrained
model may keep both), the tokens and the scored positions. Hashing takes about half a second
for each gigabyte and core.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lfm2gguf.caches import cache_folder
from lfm2gguf.errors import OutputError
from lfm2gguf.storage import create
from lfm2gguf.verification.material.texts import Sample

REVISION = 1  # raise when the reference forward pass changes what it computes
MAX_BYTES = 2 << 30
PIECE, BLOCK = 64 << 20, 1 << 20


def content_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the SHA-256 of each 64 MiB piece of each file, pieces in parallel."""
    pieces = [
        (path, start)
        for path in sorted(files)
        for start in range(0, max(1, path.stat().st_size), PIECE)
    ]
    whole = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for digest in pool.map(_piece_digest, pieces):
            whole.update(digest)
    return whole.hexdigest()


def _piece_digest(piece: tuple[Path, int]) -> bytes:
    path, start = piece
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(0, PIECE, BLOCK):
            found.update(file.read(BLOCK))
    return found.digest()


def key(checkpoint: str, samples: Sequence[Sample]) -> str:
    """Return the name of an entry, from a checkpoint's digest and the samples."""
    whole = hashlib.sha256(f"{REVISION} {checkpoint} {len(samples)}".encode())
    for sample in samples:
        for part in (sample.ids.astype("<i4"), sample.positions.astype("<i4")):
            whole.update(len(part).to_bytes(8, "little"))
            whole.update(part.tobytes())
    return whole.hexdigest()


def load(name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """Give the states of an entry, or None where there is no sound one of this shape."""
    path = cache_folder() / f"{name}.npy"
    try:
        states = np.load(path, allow_pickle=False)
        os.utime(path)  # what is used least recently goes first
    except (OSError, ValueError, EOFError):
        return None
    if states.shape != shape or states.dtype != np.float32 or not np.isfinite(states).all():
        return None
    return np.asarray(states, np.float32)


def store(name: str, states: npt.NDArray[np.float32]) -> None:
    """Keep states, dropping the oldest entries beyond 2 GiB.

    A folder that cannot be written is ignored.
    """
    folder = cache_folder()
    if states.nbytes > MAX_BYTES:
        return
    with contextlib.suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True)
        with create(folder / f"{name}.npy", overwrite=True) as partial, partial.open("wb") as file:
            np.save(file, states)
        _trim(folder)


def _trim(folder: Path) -> None:
    entries = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
    held = 0
    for path in entries:
        held += path.stat().st_size
        if held > MAX_BYTES:
            path.unlink(missing_ok=True)
