"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

Anthropic's paths have Anthropic's shape. Source of the shapes and their codes: OpenAI's API
reference, "Error codes"; Anthropic's, "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from lfm2gguf.errors import ContextError, Lfm2ggufError, OptionError, UnsupportedError
from lfm2gguf.server.settings import UNSUPPORTED
from lfm2gguf.server.wire import Wire

HUNG_UP = 499  # nginx's number for a client that did not wait; it is counted, and never sent


class ErrorDetail(Wire):
    """What is wrong, and with which parameter."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Wire):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class Refusal(HTTPException):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.param = code, param


class InvalidError(Exception):
    """A request whose body is not what its endpoint takes: pydantic's errors."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


_TYPES = {429: "rate_limit_error"}
_REFUSED: tuple[tuple[type[Lfm2ggufError], str | None], ...] = (  # by what the client sent: 400
    (ContextError, "context_length_exceeded"),
    (OptionError, None),
    (UnsupportedError, None),
)


def body_of(error: Exception) -> tuple[int, ErrorBody]:
    """Return the status and body that tell a client of an error."""
    if isinstance(error, HTTPException):
        code, param = getattr(error, "code", None), getattr(error, "param", None)
        return error.status_code, _body(error.status_code, error.detail, param, code)
    if isinstance(error, InvalidError):
        return 400, _invalid(error)
    for kind, code in _REFUSED:
        if isinstance(error, kind):
            return 400, _body(400, str(error), None, code)
    if isinstance(error, Lfm2ggufError):
        return 500, _body(500, str(error))
    return 500, _body(500, "the server failed; its log says how")


def response_of(error: Exception, path: str) -> JSONResponse:
    """Return the response that tells a client of an error, in the shape of the path's API."""
    status, body = body_of(error)
    anthropics = path.removeprefix("/v1").startswith("/messages")
    content = as_anthropic(status, body.error) if anthropics else body.model_dump()
    return JSONResponse(content, status, getattr(error, "headers", None))


def as_anthropic(status: int, error: ErrorDetail) -> dict[str, Any]:
    """Return an error in Anthropic's shape."""
    kind = _ANTHROPICS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


_ANTHROPICS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
}  # fmt: skip


def _body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> ErrorBody:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def _invalid(error: InvalidError) -> ErrorBody:
    first = max(error.errors, key=_closeness)
    path = map(str, first["loc"])
    where = ".".join(name for name in path if _FIELD.fullmatch(name) and name not in _KINDS)
    if first["type"] == "extra_forbidden":
        return _body(400, f"unknown parameter: {where}", where, "unknown_parameter")
    code = "unsupported_parameter" if first["type"] == UNSUPPORTED else "invalid_value"
    return _body(400, f"{where or 'body'}: {first['msg']}", where or None, code)


# Of a union pydantic tells every member's errors, the members' names in their places.
_FIELD = re.compile(r"[a-z0-9_]+")
_KINDS = {"str", "int", "float", "bool"}


def _closeness(error: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how near a union's member comes: its error's depth, and whether the type fits."""
    return len(error["loc"]), not error["type"].endswith(("_type", "literal_error"))


async def _handle(request: Request, error: Exception) -> JSONResponse:
    return response_of(error, request.url.path)


def add_handlers(app: Starlette) -> None:
    """Make an application answer every error in this shape."""
    for kind in (HTTPException, InvalidError, Lfm2ggufError, Exception):
        app.add_exception_handler(kind, _handle)
