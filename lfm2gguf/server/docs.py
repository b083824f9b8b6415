"""``GET /docs``: the endpoints and their parameters as a page, without scripts or other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from lfm2gguf.rendering import Table, document, html_table

router = APIRouter()

HEADS = ("parameter", "kind", "what it does")


@router.get("/docs", include_in_schema=False, response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """Show the endpoints and their parameters."""
    body = _page(request.app.openapi())
    return HTMLResponse("".join(document("lfm2gguf serve", "What this server takes", body)))


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
