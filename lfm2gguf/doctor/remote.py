"""A repository of the Hub as files here, without its weights: their headers and then holes.

Headers come by range requests through huggingface_hub's file system, the small files as ever.
What is made is a folder of sparse files, which every reader opens as it opens a download.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from lfm2gguf.checkpoint import (
    DEFAULT_TYPE,
    NEEDED_FILES,
    fetch,
    gguf_files,
    is_repository,
    one_hub_error,
    refuse_for_local,
    repository_files,
)
from lfm2gguf.errors import GGUFError, HubError, Lfm2ggufError
from lfm2gguf.gguf_file import GGUFFile

FIRST = 1 << 22  # bytes of a GGUF that are read at first; a vocabulary takes two or three MiB
BLOCK = 1 << 18  # bytes of a request, at least
LARGEST = 1 << 28  # bytes of a header, of which gigabytes would be another kind of file
WEIGHTS = (".safetensors", ".gguf")


@contextlib.contextmanager
def opened(
    source: str | Path, type: str | None = None, revision: str | None = None
) -> Iterator[Path | None]:
    """Give a repository's checkpoint folder, or its GGUF of a type; None for what is here.

    A ``type`` asks for the GGUF where a repository holds both.
    Errors name the repository, and not the folder that it stands in for a while.

    Raises:
        HubError: it cannot be reached, or holds neither.
        OptionError: ``type`` or ``revision`` is given for what is here.

    """
    if not is_repository(source):
        refuse_for_local(source, type=type, revision=revision)
        yield None
        return
    repository = str(source)
    names = repository_files(repository, revision)
    with tempfile.TemporaryDirectory(prefix="lfm2gguf-") as temporary:
        folder = Path(temporary, *repository.split("/"))
        try:
            yield _fill(folder, repository, names, type, revision)
        except Lfm2ggufError as error:
            raise error.__class__(plain_name(str(error), temporary)) from error


def plain_name(text: str, temporary: str | Path) -> str:
    """Return a text without the folder in which a repository stands in for a while."""
    return text.replace(f"{temporary}{os.sep}", "")


def _fill(
    folder: Path, repository: str, names: Sequence[str], type: str | None, revision: str | None
) -> Path:
    is_checkpoint = "config.json" in names and any(n.endswith(".safetensors") for n in names)
    if is_checkpoint and type is None:
        wanted = [n for n in names if any(fnmatch(n, p) for p in NEEDED_FILES)]
        small = [name for name in wanted if not name.endswith(WEIGHTS)]
        cached = fetch(repository, revision, small)
        for name in small:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached / name, folder / name)
        headed, target, read = [n for n in wanted if n not in small], folder, _safetensors
    elif is_checkpoint or any(name.endswith(".gguf") for name in names):
        headed, read = gguf_files(repository, names, type or DEFAULT_TYPE), _gguf
        target = folder / PurePosixPath(headed[0])
    else:
        raise HubError(f"{repository}: holds neither safetensors nor a GGUF file; check the id")
    from huggingface_hub import HfFileSystem

    files = HfFileSystem()
    at = f"{repository}@{revision}" if revision else repository
    for name in headed:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            one_hub_error(repository, revision),
            files.open(f"{at}/{name}", "rb", block_size=BLOCK) as remote,
        ):
            _stand_in(path, remote, read)
    return target


def _stand_in(path: Path, remote: Any, read: Callable[[Path, int], int]) -> None:
    """Write a file's beginning, as far as ``read`` wants it, and a hole for the rest.

    ``read`` is handed the file and how much of it is real, and returns how much it needs.
    """
    size: int = remote.size
    there, needed = 0, min(size, 8)
    with path.open("wb") as file:
        while there < needed <= LARGEST:
            file.write(remote.read(needed - there))
            there = file.tell()
            file.flush()
            os.truncate(path, size)
            needed = min(size, read(path, there))


def _safetensors(path: Path, there: int) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _gguf(path: Path, there: int) -> int:
    """Want more until the first tensor begins within what is there: then all keys are."""
    if there < FIRST:
        return FIRST
    try:
        tensors = GGUFFile.open_one(path).tensors.values()
    except GGUFError:
        return 2 * there
    starts = min((tensor.offset for tensor in tensors), default=there)
    return there if starts <= there else 2 * there
