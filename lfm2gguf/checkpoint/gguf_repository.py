"""GGUF files from the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lfm2gguf.checkpoint.hub import fetch, is_repository, refuse_for_local, repository_files
from lfm2gguf.errors import HubError

DEFAULT_TYPE = "Q4_K_M"
_NUMBERED = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def gguf_path(source: str | Path, type: str | None = None, revision: str | None = None) -> Path:
    """Return what is on this machine as it is, and of a repository its model of a type.

    Raises:
        HubError: the repository, or a file of this type in it, is missing.
        OptionError: ``type`` or ``revision`` is given for what is on this machine.
    """
    if not is_repository(source):
        refuse_for_local(source, type=type, revision=revision)
        return Path(source)
    return fetch_gguf(str(source), type or DEFAULT_TYPE, revision)


def fetch_gguf(repository: str, type: str, revision: str | None = None) -> Path:
    """Return the path of a repository's model of a type, downloaded into the Hub's cache once.

    Projectors (``mmproj-...``) are passed over; of a model in several files all are fetched, and
    the first is returned.

    Raises:
        HubError: the repository, or a file of this type in it, is missing.
    """
    parts = gguf_files(repository, repository_files(repository, revision), type)
    return fetch(repository, revision, parts) / parts[0]


def gguf_files(repository: str, names: Iterable[str], type: str) -> list[str]:
    """Return which of a repository's files are its model of a type: one, or all its parts.

    Raises:
        HubError: none is.
    """
    files = sorted(name for name in names if _is_model(name))
    wanted = [name for name in files if _has_type(name, type)]
    if not wanted:
        there = ", ".join(files) or "no GGUF model at all"
        raise HubError(f"{repository}: no GGUF file of type {type}; it has {there}")
    return [name for name in wanted if _whole(name) == _whole(wanted[0])]


def _is_model(name: str) -> bool:
    return name.endswith(".gguf") and "mmproj" not in name.lower()


def _has_type(name: str, type: str) -> bool:
    """``LFM2-1.2B-Q4_K_M.gguf`` has the type Q4_K_M, and neither K_M nor M."""
    return re.fullmatch(rf"(.*[-./])?{re.escape(type)}\.gguf", _whole(name), re.I) is not None


def _whole(name: str) -> str:
    """Return the name that a numbered part's model would have in one file."""
    return _NUMBERED.sub(".gguf", name)
