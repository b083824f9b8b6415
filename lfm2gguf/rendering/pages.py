"""Reports as HTML pages: one frame, one stylesheet; nothing fetched from anywhere, no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from lfm2gguf.rendering.palette import curve_class, tokens
from lfm2gguf.rendering.tables import Table

# Bars of a ladder of types. Beside the chat page's name and the reports' titles, and the icon.
MARK = (
    '<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect class="plate" width="32" '
    'height="32" rx="8"/><path class="bars" d="M8 24V8M14 24v-6M20 24v-9M26 24v-3"/></svg>'
)


def document(kind: str, title: str, body: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a page: ``kind`` is what made it, ``title`` what it is about."""
    style = tokens() + Path(__file__).with_name("page.css").read_text("utf-8")
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(kind)}: {escape(title)}</title><style>{style}</style></head><body>"
    yield f"<header><p>{MARK}{escape(kind)}</p><h1>{escape(title)}</h1></header><main>"
    yield from body
    yield "</main></body></html>"


def html_table(table: Table) -> Iterator[str]:
    """Yield a table that scrolls by itself where it is wider than the page."""
    name = escape(table.title)
    yield f"<h3>{name}</h3>" if table.title else ""
    yield f'<div class="scroll" tabindex="0" role="group" aria-label="{name or "Table"}">'
    yield "<table><thead>"
    yield _row("th", table.heads, table.texts)
    yield "</thead><tbody>"
    yield from (_row("td", row, table.texts) for row in table.rows)
    yield "</tbody></table></div>"


def notebook_table(table: Table, caption: str = "") -> str:
    """Return a table, under a line of words, as a notebook's cell shows it."""
    words = f"<p>{escape(caption)}</p>" if caption else ""
    return words + ("".join(html_table(table)) if table.rows else "")


_MARKS = {"✓": " good", "✗": " bad"}  # a cell that begins with one has its colour
LONG = 40  # characters, from which on a cell is broken into lines


def _row(tag: str, cells: Sequence[str], texts: int) -> str:
    tags = (tag if cell else "td" for cell in cells)  # a heading has words
    body = (
        f'<{tag} class="{"text" if i < texts else "number"}{_MARKS.get(cell[:1], "")}'
        f'{" long" if len(cell) > LONG else ""}">{escape(cell)}</{tag}>'
        for i, (tag, cell) in enumerate(zip(tags, cells, strict=True))
    )
    return f"<tr>{''.join(body)}</tr>"


def folded(title: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield words and what they mean, behind a title that opens them."""
    yield f"<details><summary>{escape(title)}</summary><dl>"
    yield from (f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs)
    yield "</dl></details>"


def html_figure(title: str, svg: str) -> str:
    """Return a plot under its title."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def figures(drawn: Sequence[str]) -> Iterator[str]:
    """Yield figures side by side where the page has room; empty ones are left out."""
    if any(drawn):
        yield '<section class="plots">'
        yield from filter(None, drawn)
        yield "</section>"


def keys(labels: Sequence[str]) -> str:
    """Return the legend of curves, in their order."""
    items = (
        f'<li><i class="{curve_class(i)}"></i>{escape(label)}</li>'
        for i, label in enumerate(labels)
    )
    return f'<ul class="keys">{"".join(items)}</ul>'
