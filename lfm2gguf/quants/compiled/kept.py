"""Machine code of earlier runs: used where it is whole and of these very sources."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl
from numba.core.serialize import dumps

from lfm2gguf.caches import cache_folder

HERE = Path(__file__).parent
DIGEST_BYTES = 32


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _digest_of_sources()
MADE_BY = f"numba {numba.__version__}, llvmlite {llvmlite.__version__}"


def folders() -> list[Path]:
    """Return where code is looked for, in this order; it is kept in the first that takes it.

    ``NUMBA_CACHE_DIR`` alone where it is set. Otherwise beside the sources, where whoever
    installed them may have compiled ahead for all users, and in the user's folder for caches.
    """
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / "lfm2gguf"]
    place = hashlib.sha256(str(HERE).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return [HERE / "__pycache__", cache_folder() / "kernels" / place]


def place() -> Path | None:
    """Return the folder where code is kept; None where none takes it."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return None


class _Code(CompileResultCacheImpl):
    """How numba takes a compiled function apart, and puts it together; its files are not ours."""

    def __init__(self) -> None:
        pass


class Kept:
    """The code of one function, a file for each signature, in place of numba's own cache.

    numba has an index in one file and code in others. Two processes at once, or one that is
    killed between the two, leave an entry with another signature's code; a file that is cut off
    ends the program, as does a full disk, and as does having no folder to write to. It looks at
    one source file, not at what that inlines. Here a file begins with a digest of all that its
    code was made of and of the code, and what is not right is not there.

    What numba calls is that of ``_Cache`` in numba/core/caching.py, versions 0.60 to 0.68.
    """

    code = _Code()

    def __init__(self, function: Callable[..., Any]) -> None:
        module = function.__module__.rpartition(".")[2]
        self._name = f"{module}.{function.__qualname__}".replace("<", "").replace(">", "")

    @property
    def cache_path(self) -> str:
        """The first folder."""
        return str(folders()[0])

    def load_overload(self, sig: Any, target_context: Any) -> Any | None:
        """Return the function for these types of arguments; None where it is to be compiled."""
        target_context.refresh()
        name, made_of = self._entry(sig, target_context.codegen())
        for folder in folders():
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            code = content[DIGEST_BYTES:]
            if content[:DIGEST_BYTES] == _digest(made_of, code):
                reduced = pickle.loads(code)  # noqa: S301 - trusted as .pyc files are
                return self.code.rebuild(target_context, reduced)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a function that was compiled, if any folder takes it."""
        if data.library.has_dynamic_globals:  # addresses of this process
            return
        name, made_of = self._entry(sig, data.codegen)
        code = dumps(self.code.reduce(data))
        content = _digest(made_of, code) + code
        for folder in folders():
            with contextlib.suppress(OSError):
                _write(folder / name, content)
                return

    def _entry(self, sig: Any, codegen: Any) -> tuple[str, str]:
        """Return a file's name, the same for other sources, and all that its code is made of."""
        which = f"{sys.implementation.cache_tag} {sig} {codegen.magic_tuple()}"
        key = hashlib.sha256(which.encode()).hexdigest()[:16]
        return f"{self._name}.{key}.nbc", f"{self._name} {which} {MADE_BY} {SOURCES}"


def _write(path: Path, content: bytes) -> None:
    """Write a file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _digest(made_of: str, code: bytes) -> bytes:
    digest = hashlib.sha256(made_of.encode())
    digest.update(code)
    return digest.digest()
