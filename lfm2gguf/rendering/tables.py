"""Tables of text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first ``texts`` columns are words, the others numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def markdown_table(table: Table) -> Iterator[str]:
    """Yield the lines of a Markdown table, numbers to the right."""
    marks = ["---" if i < table.texts else "---:" for i in range(len(table.heads))]
    yield _line(map(escaped, table.heads))
    yield _line(marks)
    for row in table.rows:
        yield _line(map(escaped, row))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return a text that stays in its line and cell, and starts no HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines of comma-separated values, headings first; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return buffer.getvalue()
