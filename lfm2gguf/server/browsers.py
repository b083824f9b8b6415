"""What browsers and curious clients ask beside the requests themselves: origins, HEAD, warnings."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfm2gguf.server.settings import LENIENCY, Leniency

access = logging.getLogger("lfm2gguf.server.access")

PREFIX = "/v1"
OWN_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
WARNING = "X-Lfm2gguf-Warning"
_EXPOSED = [WARNING, "Retry-After"]


def cross_origin(app: ASGIApp, origins: Collection[str]) -> CORSMiddleware:
    """Return an application whose answers pages of some origins may read (CORS).

    Pages that this machine itself serves may always; ``*`` lets all.
    """
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_origin_regex=OWN_ORIGINS,
        allow_methods=("GET", "HEAD", "POST", "OPTIONS"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
    )


class Unversioned:
    """ASGI middleware that serves paths without their ``/v1``, too.

    Some clients' base URL has it, some add it to the one they are given, some do neither.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str]) -> None:
        self._app = app
        self._paths = [compile_path(path)[0] for path in paths]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and not scope["path"].startswith(PREFIX + "/"):
            path = PREFIX + scope["path"]
            if any(known.match(path) for known in self._paths):
                # in place: what stands outside logs the route that is found inside
                raw = PREFIX.encode() + scope.get("raw_path", b"")
                scope.update({"path": path, "raw_path": raw})
        await self._app(scope, receive, send)


class Heads:
    """ASGI middleware that answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"  # in place, as above
        return await self._app(scope, receive, without_body)


class Warnings:
    """ASGI middleware that lets an answer tell, in a header, what its request had for nothing."""

    def __init__(self, app: ASGIApp, *, lenient: bool) -> None:
        self._app, self._lenient = app, lenient

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and put its warnings into the response's head."""
        leniency = Leniency(self._lenient)
        token = LENIENCY.set(leniency)

        async def warning(message: Message) -> None:
            if message["type"] == "http.response.start" and leniency.warnings:
                MutableHeaders(scope=message)[WARNING] = "; ".join(leniency.warnings)[:2000]
            await send(message)

        try:
            await self._app(scope, receive, warning)
        finally:
            LENIENCY.reset(token)


class AccessLog:
    """ASGI middleware that logs a line a request: no prompt, no key, nothing the client wrote."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and log what became of it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, method = time.perf_counter(), 0, scope["method"]

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            method = method if method in _METHODS else "(odd method)"
            client = (scope.get("client") or ("-",))[0]
            seconds = time.perf_counter() - began
            access.info("%s %s %s %s %.3f s", client, method, place(scope), status or "-", seconds)


_METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}


def place(scope: Scope) -> str:
    """Return the endpoint of a request as the application spells it, not as the client did."""
    endpoint: Any = scope.get("endpoint")
    return str(getattr(endpoint, "path", "(nowhere)"))
