"""llama-cpp-python's modules of C functions, and its version, without what the package imports.

With the package come the class Llama, NumPy, Jinja and a cache on disk, none of which is of use
here: a model would be loaded 60 ms later.
"""

from __future__ import annotations

import re
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "llama_cpp"
_lock = threading.Lock()


def bindings(name: str) -> Any:
    """Return the module of this name; who imports the package later finds the same one in it.

    Where other threads run, one may import the package at this moment, and must not see it without
    what is in it: then it is imported whole.

    Raises:
        ImportError: it is not there.
        OSError, RuntimeError: its library does not load.
    """
    whole = f"{PACKAGE}.{name}"
    with _lock:
        alone = threading.active_count() == 1
        if not alone or {PACKAGE, whole} & set(sys.modules) or not (found := find_spec(PACKAGE)):
            return import_module(whole)
        package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
        package.__path__ = list(found.submodule_search_locations or ())
        try:
            return import_module(whole)
        finally:
            del sys.modules[PACKAGE]


def bindings_version() -> str:
    """Return llama-cpp-python's version as its own file says it; empty where there is none.

    To ask importlib.metadata takes 15 ms.
    """
    found = find_spec(PACKAGE)
    text = Path(found.origin).read_text("utf-8") if found and found.origin else ""
    match = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    return match[1] if match else ""
