"""The edges of HTTP: headers that never end, foreign hosts, connections without a descriptor."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Collection
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lfm2gguf.server.errors import Refusal, response_of

logger = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = "*"
LOG_SECONDS = 60.0  # between two lines on descriptors


def protocol(header_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol that closes connections whose headers do not arrive in time.

    h11 bounds a header's bytes, and nothing its time; uvicorn closes idle connections only after
    an answer.
    """

    class Bounded(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._late is None:
                self._late = self.loop.call_later(header_seconds, self._close)

        def _stop(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _close(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Bounded


class OnlyHosts:
    """ASGI middleware that refuses requests for other hosts.

    A page of any site can point its name at 127.0.0.1 and then read what a local server answers
    (DNS rebinding); its requests still carry the site's name.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 421."""
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if given and name_of(given) not in self._hosts:
                message = (
                    f"this server is not {given[:80]!r}: behind a proxy, start it with "
                    "--allow-host NAME (hosts=...)"
                )
                refused = response_of(Refusal(421, message), scope["path"])
                return await refused(scope, receive, send)
        return await self._app(scope, receive, send)


class Unfinished:
    """ASGI middleware that answers a request which the end of the drain cuts off.

    uvicorn cancels it then, and says 500 in plain text of what has not begun to answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer 503 if it is cancelled before its answer begins."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            ended = Refusal(503, "the server ends: ask again when it is back", code="unavailable")
            await response_of(ended, scope["path"])(scope, receive, send)


def name_of(host: str) -> str:
    """Return the name or address in a Host header, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def is_loopback(host: str) -> bool:
    """Say whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Complaints:
    """An event loop's handler of errors: it says once a minute that descriptors have run out.

    asyncio says it for every connection that waits, thousands of times a second.
    """

    def __init__(self) -> None:
        self._said = -LOG_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the loop."""
        if "out of system resource" not in context.get("message", ""):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said >= LOG_SECONDS:
            self._said = time.monotonic()
            logger.warning(
                "no descriptor is left, so new connections wait (%s); raise the limit: ulimit -n",
                context.get("exception"),
            )
