"""An OpenAI-compatible HTTP server over a Runner.

``create_app`` returns an ASGI application for any server of that kind, ``run`` serves it with
uvicorn. The names are loaded when they are first used: they need ``lfm2gguf[serve]``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import MissingDependencyError
from lfm2gguf.install import install_command

if TYPE_CHECKING:
    from lfm2gguf.server.app import create_app
    from lfm2gguf.server.limits import Limits
    from lfm2gguf.server.serving import run

__all__ = ["Limits", "check_installed", "create_app", "run"]

_NEEDED = ("fastapi", "prometheus_client", "uvicorn")

_HOME = {
    "Limits": "lfm2gguf.server.limits",
    "create_app": "lfm2gguf.server.app",
    "run": "lfm2gguf.server.serving",
}


def check_installed() -> None:
    """Check that what it needs is installed, without the time that importing it takes.

    Raises:
        MissingDependencyError: it is not.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise _missing(name)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lfm2gguf.server' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ImportError as error:
        raise _missing(error.name) from error


def _missing(name: str | None) -> MissingDependencyError:
    return MissingDependencyError(f"{name} is needed to serve a model: {install_command('serve')}")
