"""What a request may cost, and the reading of its body within that."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import check_numbers
from lfm2gguf.server.errors import Refusal, response_of

DEEPEST = 200  # in a request; pydantic writes 255 levels, and a schema may have 100


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    ``body_bytes`` of a request (413), ``prompt_tokens`` of a prompt (400; None: what the context
    holds), ``queue`` answers that wait while others are computed (429), ``seconds`` until an
    answer is whole (504), ``body_seconds`` until a request's body has arrived (408).
    ``any_grammar``: whether clients' grammars (GBNF) are taken as they are. Otherwise one is
    refused (400) if no bound is known for what a token costs: an ambiguous one takes llama.cpp for
    ever.
    """

    body_bytes: int = 32 << 20
    prompt_tokens: int | None = None
    queue: int = 64
    seconds: float = 600.0
    body_seconds: float = 30.0
    any_grammar: bool = False

    def __post_init__(self) -> None:
        check_numbers(type(self).__annotations__, vars(self))
        for name, value in vars(self).items():
            least = 0 if name in ("queue", "any_grammar") else 1e-3
            if value is not None and not value >= least:
                raise OptionError(f"{name} is {value}: it must be at least {least:g}")


class BoundedBody:
    """ASGI middleware that reads a request's body whole, within its limits, before all else."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._read(scope, receive), self._limits.body_seconds)
            if b"json" in dict(scope["headers"]).get(b"content-type", b""):
                if _too_deep(body):
                    raise Refusal(400, f"the body nests deeper than {DEEPEST}", code="invalid_json")
                body = _without_halves(body)
        except asyncio.TimeoutError:
            late = f"the request's body did not arrive within {self._limits.body_seconds:g} s"
            return await response_of(Refusal(408, late), scope["path"])(scope, receive, send)
        except Refusal as refusal:
            return await response_of(refusal, scope["path"])(scope, receive, send)
        whole: Message = {"type": "http.request", "body": body, "more_body": False}
        unread = [whole]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        return await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        _refuse_encoded(scope)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        self._check(int(announced) if announced.isdigit() else 0)
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            self._check(len(body))
            if not message.get("more_body", False):  # the end, or the client has hung up
                return bytes(body)

    def _check(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise Refusal(
                413,
                f"the request's body is larger than {self._limits.body_bytes} bytes",
                code="request_too_large",
            )


# A surrogate's escape without the other half, wherever it may stand; and each escape by itself.
_MAYBE_HALF = re.compile(
    rb"\\u[dD][89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][\da-fA-F]{2})\\u[dD][c-fC-F]"
)
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][\da-fA-F]{2})|\\.",
    re.DOTALL,
)


def _without_halves(body: bytes) -> bytes:
    """Return a JSON text with U+FFFD for each half of a character.

    A client that cuts a text between the two halves that JavaScript counts sends one. No UTF-8 has
    it, and so no answer that repeats the text could be written.
    """
    if (rb"\ud" not in body and rb"\uD" not in body) or not _MAYBE_HALF.search(body):
        return body  # which is all that nearly every request costs
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found["half"] else found[0], body)


def _refuse_encoded(scope: Scope) -> None:
    """Refuse a body that is compressed: within its bytes there may be any number of others."""
    for name, value in scope["headers"]:
        encoding = value.decode("latin-1").strip().lower()
        if name == b"content-encoding" and encoding not in ("", "identity"):
            raise Refusal(
                415,
                f"the body is encoded ({encoding[:40]}); send it as it is, without "
                "Content-Encoding",
                headers={"Accept-Encoding": "identity"},  # RFC 9110, 15.5.16
            )


def _too_deep(body: bytes) -> bool:
    """Return whether lists and objects of a JSON text stand deeper in one another than DEEPEST.

    What validates, renders and writes a request's values recurses as deep as they nest. Takes a
    second at most for 32 MiB, whatever they hold.
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    plain = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    in_text = np.cumsum(plain == ord('"'), dtype=np.uint8) & 1
    bare = plain[in_text == 0]
    closing = (bare == ord("]")) | (bare == ord("}"))
    steps = ((bare == ord("[")) | (bare == ord("{"))).astype(np.int8) - closing
    return bool(np.cumsum(steps, dtype=np.int32).max(initial=0) > DEEPEST)
