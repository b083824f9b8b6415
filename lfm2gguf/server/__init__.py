"""An OpenAI-compatible HTTP server over a Runner.

``create_app`` returns an ASGI application for any server of that kind, ``run`` serves it with
uvicorn. The names are loaded when they are first used: they need ``lfm2gguf[serve]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import MissingDependencyError
from lfm2gguf.install import install_command

if TYPE_CHECKING:
    from lfm2gguf.server.app import create_app
    from lfm2gguf.server.limits import Limits
    from lfm2gguf.server.serving import run

__all__ = ["Limits", "create_app", "run"]

_HOME = {
    "Limits": "lfm2gguf.server.limits",
    "create_app": "lfm2gguf.server.app",
    "run": "lfm2gguf.server.serving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lfm2gguf.server' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is needed to serve a model: {install_command('serve')}"
        ) from error
