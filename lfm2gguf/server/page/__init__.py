"""``GET /``: a chat page of our own.

Its parts lie beside this file and are put together once: one document with its style and script
inside, which fetches nothing but this server's API. The Content-Security-Policy allows these two
by their hashes and nothing else, and lets no script turn text into HTML.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote

from starlette.responses import HTMLResponse

from lfm2gguf.rendering import MARK, tokens
from lfm2gguf.server.endpoints import Endpoints

SCRIPTS = ("markdown.js", "client.js", "view.js", "main.js")  # in this order, in one scope
_UNSENT = re.compile(r"^ *(//.*\n)?", re.MULTILINE)  # strings end in their line
_ICON_COLORS = {
    'class="plate"': 'fill="#2563b8"',
    'class="bars"': 'stroke="#fff" stroke-width="3.4" stroke-linecap="round"',
}

router = Endpoints()


@dataclass(frozen=True)
class Page:
    """A document and the headers that belong to it."""

    html: str
    headers: dict[str, str]


@router.get("/", open=True, listed=False)
async def index() -> HTMLResponse:
    """Return the chat page. It says nothing of the model: it asks, with a key where one is set."""
    page = chat_page()
    return HTMLResponse(page.html, headers=page.headers)


@functools.cache
def chat_page() -> Page:
    """Put the page together, and its Content-Security-Policy."""
    style = tokens() + _part("page.css")
    script = f'(() => {{\n"use strict";\n{"".join(map(_part, SCRIPTS))}}})();\n'
    html = _part("page.html")
    for name, text in {"icon": _icon(), "mark": MARK, "style": style, "script": script}.items():
        html = html.replace(f"{{{{{name}}}}}", text)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
    return Page(html, headers)


def _part(name: str) -> str:
    """Return a file's text without indentation and comments, which no browser needs."""
    return _UNSENT.sub("", (files(__name__) / name).read_text("utf-8"))


def _icon() -> str:
    icon = MARK.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    for given, alone in _ICON_COLORS.items():  # an icon has no style sheet
        icon = icon.replace(given, alone)
    return f"data:image/svg+xml,{quote(icon)}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
