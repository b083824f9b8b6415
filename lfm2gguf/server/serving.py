"""The application on a socket, by uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from lfm2gguf.errors import OptionError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        OptionError: the address is not this machine's, or taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OptionError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}"
        ) from error


def run(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_seconds: float = 30.0,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way, within ``drain_seconds``.

    ``started`` is called with the server's address when it takes connections.

    Raises:
        OptionError: the address is not this machine's, or taken.
    """
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_config=None, timeout_graceful_shutdown=max(1, round(drain_seconds))
        )
        uvicorn.Server(config).run(sockets=[listening])
