"""The application on a socket, by uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from lfm2gguf.errors import OptionError
from lfm2gguf.server.edges import (
    ANY,
    LOOPBACK,
    Complaints,
    OnlyHosts,
    Unfinished,
    is_loopback,
    protocol,
)


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
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_seconds: float = 30.0,
    header_seconds: float = 30.0,
    hosts: Collection[str] = (),
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way, within ``drain_seconds``.

    A connection whose header does not arrive within ``header_seconds`` is closed. On a loopback
    address requests must be for it, or for one of ``hosts``; ``*`` among these allows all.
    ``started`` is called with the server's address when it takes connections.

    Raises:
        OptionError: the address is not this machine's, or taken.
    """
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listening.getsockname()[1]}")
        guarded = is_loopback(host) and ANY not in hosts
        answering = Unfinished(app)
        config = uvicorn.Config(
            OnlyHosts(answering, {*LOOPBACK, host, *hosts}) if guarded else answering,
            http=protocol(header_seconds),
            ws="none",
            log_config=None,
            access_log=False,  # the application has its own, which holds nothing of the client's
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    async def startup(self, *arguments: Any, **options: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(Complaints())
        await super().startup(*arguments, **options)
