"""``GET /docs``: the endpoints and their parameters as a page, without scripts or other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>lfm2gguf</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{font-family:ui-monospace,monospace}h2{margin:2rem 0 .3rem;font-size:1.1rem}
table{border-collapse:collapse;width:100%}td{border-top:1px solid #8884;padding:.2rem .6rem .2rem 0;
vertical-align:top}td:first-child{white-space:nowrap}summary{cursor:pointer}
:root{color-scheme:light dark}</style>
<h1>lfm2gguf</h1>
<p>What this server takes. Paths with <code>/v1</code> work without it, too. The same for programs:
<a href="openapi.json">openapi.json</a>.</p>
"""


@router.get("/docs", include_in_schema=False, response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """Show the endpoints and their parameters."""
    return HTMLResponse("".join(_page(request.app.openapi())))


def _page(description: dict[str, Any]) -> Iterator[str]:
    yield _HEAD
    schemas = description["components"]["schemas"]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description') or operation['summary'])}</p>"
            content = operation.get("requestBody", {}).get("content", {})
            reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
            if schema := schemas.get(reference.rpartition("/")[2]):
                yield from _parameters(schema)
    yield "</html>"


def _parameters(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    yield "<details><summary>Parameters</summary><table>"
    for name, field in schema["properties"].items():
        said = escape(field.get("description", ""))
        needed = " (required)" if name in required else ""
        yield f"<tr><td><code>{escape(name)}</code>{needed}<td>{_kind(field)}<td>{said}"
    yield "</table></details>"


def _kind(field: dict[str, Any]) -> str:
    choices = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    words = dict.fromkeys(
        " or ".join(map(repr, part["enum"])) if "enum" in part else part.get("type", "")
        for part in choices
    )
    return escape(" or ".join(filter(None, words)))
