"""Where a user's caches are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NOWHERE = Path(os.devnull) / "lfm2gguf"  # a folder that nobody can make


def cache_folder() -> Path:
    """Return ``LFM2GGUF_CACHE``, or the platform's folder for caches of a user.

    Of a user without a home (a container's number that no account has) it is one that cannot be
    made: nothing is kept.
    """
    if chosen := os.environ.get("LFM2GGUF_CACHE"):
        return Path(chosen)
    variable, inside = {
        "win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches"),
    }.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))  # fmt: skip
    if chosen := os.environ.get(variable):
        return Path(chosen) / "lfm2gguf"
    try:
        return Path.home() / inside / "lfm2gguf"
    except RuntimeError:
        return NOWHERE
