"""Shared libraries of a few lines of C."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="no compiler, or not Linux"
)


def build(library: Path, source: str, *needs: Path) -> None:
    """Compile a library, which asks for the libraries it ``needs`` when it is loaded."""
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wl,--no-as-needed", "-x", "c", "-", "-x", "none", *needs,
         f"-Wl,-soname,{library.name}", "-o", library],
        input=source.encode(),
        check=True,
    )  # fmt: skip
