"""What the server takes: ``GET /openapi.json`` for programs, ``GET /docs`` for people."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from lfm2gguf.rendering import Table, document, html_table
from lfm2gguf.server.endpoints import Endpoint, Endpoints
from lfm2gguf.server.errors import ErrorBody
from lfm2gguf.version import __version__

router = Endpoints()  # open to all
guarded = Endpoints()

# An event as OpenAPI 3.2 describes it, and FastAPI where it knows of the stream by itself.
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "A chunk as JSON, or `[DONE]`"}},
}
# How the OpenAPI description tells of answers that may be whole or a stream.
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole answer, or with `stream` its chunks as they come",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What is wrong with the request"},
    "5XX": {"model": ErrorBody, "description": "What is wrong with the server"},
}
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}
_GIVEN = ("service", "generation", "request")  # not by the client

HEADS = ("parameter", "kind", "what it does")


@guarded.get("/openapi.json", listed=False)
async def openapi(request: Request) -> Response:
    """Describe the endpoints."""
    return JSONResponse(_description(request.app.routes))


@router.get("/docs", open=True, listed=False)
async def docs(request: Request) -> Response:
    """Show the endpoints and their parameters."""
    body = _page(_description(request.app.routes))
    return HTMLResponse("".join(document("lfm2gguf serve", "What this server takes", body)))


def _description(routes: list[Any]) -> dict[str, Any]:
    """Return what FastAPI says of the endpoints that are listed, as OpenAPI has it."""
    from fastapi import FastAPI, Security
    from fastapi.security import APIKeyHeader, HTTPBearer

    app = FastAPI(title="lfm2gguf", version=__version__)
    bearer = HTTPBearer(auto_error=False, description="The server's API key, where it has one.")
    header = APIKeyHeader(name="x-api-key", auto_error=False, description="The same.")
    keys = [Security(bearer), Security(header)]
    for endpoint in (route.endpoint for route in routes):
        if endpoint.listed:
            text = endpoint.answer is Response
            app.add_api_route(
                endpoint.path,
                _asked(endpoint),
                methods=[endpoint.method],
                response_model=None if text else endpoint.answer or endpoint.hints["return"],
                response_class=Response if text else JSONResponse,
                responses=_REFUSED
                | (_TEXT if text else {})
                | (_STREAMS if endpoint.streams else {}),
                dependencies=[] if endpoint.open else keys,
            )
    with warnings.catch_warnings():
        # pydantic's, which FastAPI keeps quiet only of models that are built by then
        warnings.simplefilter("ignore", UserWarning)
        return app.openapi()


def _asked(endpoint: Endpoint) -> Callable[..., None]:
    """Return a function with the endpoint's name and those parameters that a client gives."""

    def asked() -> None: ...

    function = endpoint.function
    asked.__name__, asked.__doc__ = function.__name__, function.__doc__
    given = [
        parameter.replace(annotation=endpoint.hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _GIVEN
    ]
    asked.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    return asked


def _page(description: dict[str, Any]) -> Iterator[str]:
    yield '<p class="legend">Paths with <code>/v1</code> work without it, too. The same for '
    yield 'programs: <a href="openapi.json">openapi.json</a>.</p>'
    schemas = description["components"]["schemas"]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            said = operation.get("description") or operation["summary"]
            yield f'<p class="legend">{escape(said)}</p>'
            content = operation.get("requestBody", {}).get("content", {})
            reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
            if schema := schemas.get(reference.rpartition("/")[2]):
                yield "<details><summary>Parameters</summary>"
                yield from html_table(_parameters(schema))
                yield "</details>"


def _parameters(schema: dict[str, Any]) -> Table:
    required = schema.get("required", ())
    rows = [
        (
            name + " (required)" * (name in required),
            _kind(field),
            field.get("description", ""),
        )
        for name, field in schema["properties"].items()
    ]
    return Table("", HEADS, rows, texts=len(HEADS))


def _kind(field: dict[str, Any]) -> str:
    choices = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    words = dict.fromkeys(
        " or ".join(map(repr, part["enum"])) if "enum" in part else part.get("type", "")
        for part in choices
    )
    return " or ".join(filter(None, words))
