"""How a table fits a terminal: whole, with folded words, or in blocks below one another.

No cell is cut: a figure that ends in an ellipsis is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

GAP = "  "
WORDY = 24  # a longer cell is words or a name, which may be folded; figures are shorter
NARROWEST = 16  # columns of folded words
NUMBER = re.compile(r"[-+]?[\d.,]+([ %]|$)")
BREAKS = re.compile(r"(?<=[ /_.,-])")

Row = Sequence[str]


def layout(heads: Row, rows: Sequence[Row], width: int) -> Iterator[list[str]]:
    """Yield blocks of lines, none wider than ``width`` where no single word is.

    The first line of a block has the heads, which may take more lines. Where the columns do not
    fit side by side, each block repeats the first column.
    """
    columns = list(zip(heads, *rows, strict=True))
    natural = [max(map(cell_len, column)) for column in columns]
    least = [max(map(cell_len, _words(head))) for head in heads]
    cells = [max(map(cell_len, column[1:]), default=0) for column in columns]
    widths = [max(a, b) for a, b in zip(least, cells, strict=True)]  # heads folded at spaces
    if _total(natural) <= width:
        widths = natural
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        if (over := _total(widths) - width) > 0 and cells[i] > WORDY:
            widths[i] = max(NARROWEST, least[i], widths[i] - over)
    if _total(widths) > width:  # blocks below one another, in which the names have room
        widths[0] = max(least[0], min(cells[0], width // 2))
    right = [bool(rows) and all(NUMBER.match(c) for c in column[1:] if c) for column in columns]
    for chosen in _blocks(widths, width):
        few = [min(widths[i], width) for i in chosen]
        lines: list[str] = []
        for n, row in enumerate([heads, *rows]):
            lines += _lines([row[i] for i in chosen], few, [right[i] for i in chosen])
            if n == 0:
                lines.append("─" * min(width, _total(few)))
        yield lines


def flow(cells: Row, width: int) -> list[str]:
    """Return cells in lines, broken between cells only; later lines are indented."""
    lines = [""]
    for cell in cells:
        joined = f"{lines[-1]}{GAP}{cell}" if lines[-1].strip() else f"{lines[-1]}{cell}"
        if cell_len(joined.rstrip()) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(f"{GAP}{cell.lstrip()}")
    return [line.rstrip() for line in lines]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _blocks(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield the columns of each block: the first of all, and as many others as fit."""
    block = [0]
    for i in range(1, len(widths)):
        if len(block) > 1 and _total([widths[j] for j in (*block, i)]) > width:
            yield block
            block = [0]
        block.append(i)
    yield block


def _lines(cells: Row, widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    folded = [fold(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for n in range(max(map(len, folded))):
        parts = [column[n] if n < len(column) else "" for column in folded]
        yield GAP.join(map(_padded, parts, widths, right)).rstrip()


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def fold(text: str, width: int) -> list[str]:
    """Return a text in lines of at most ``width`` columns, all of it."""
    lines = [""]
    for part in BREAKS.split(text):
        if cell_len(lines[-1] + part.rstrip()) <= width:
            lines[-1] += part
            continue
        pieces = _chopped(part, width)
        lines += pieces if lines[-1] else []
        if not lines[0]:
            lines = pieces
    return [line.rstrip() for line in lines]


def _chopped(text: str, width: int) -> list[str]:
    """Return a text in pieces as long as fit; Rich's own function differs between its versions."""
    pieces = [""]
    for character in text:
        if pieces[-1] and cell_len(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _words(head: str) -> list[str]:
    return head.split(" ")
