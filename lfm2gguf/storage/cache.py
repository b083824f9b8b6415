"""Where a user's caches are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return ``LFM2GGUF_CACHE``, or the platform's folder for caches of a user."""
    if chosen := os.environ.get("LFM2GGUF_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "lfm2gguf"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lfm2gguf"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfm2gguf"
