"""Tables on terminals of any width: every cell whole, no line too long."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lfm2gguf_cli.layout import WORDY, flow, fold, layout

HEADS = ("gate", "value", "limit", "margin", "verdict", "perplexity increase")
ROWS = [
    ("mean KL divergence, in nats", "0.012345", "0.05", "0.0377", "passed", "+0.52 %"),
    ("a tensor: blk.0.shortconv.in_proj.weight of shipped", "12 %", "", "1", "FAILED", "1,234.5"),
]


def text_of(blocks: list[list[str]]) -> str:
    return "\n".join("\n".join(lines) for lines in blocks)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_every_cell_is_there_at_every_width(width: int) -> None:
    blocks = list(layout(HEADS, ROWS, width))
    text = text_of(blocks)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for row in ROWS:
        for cell in row[1:]:
            assert cell in text
        for letter in set(row[0]) - {" "}:
            assert text.count(letter) >= row[0].count(letter)
    assert len(blocks) == (1 if width >= 80 else len(blocks))


def test_a_wide_terminal_has_one_line_for_a_row() -> None:
    [lines] = layout(HEADS, ROWS, 200)
    assert len(lines) == 2 + len(ROWS)
    assert lines[2].startswith("mean KL divergence, in nats")
    assert lines[0].index("value") + len("value") == lines[2].index("0.012345") + len("0.012345")


words = st.text("abc _.-/\u4e2d", max_size=30).map(str.strip)
numbers = st.integers(-(10**12), 10**12).map(lambda n: f"{n / 1000:.3f}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_figure_is_cut(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    heads = data.draw(st.lists(words, min_size=n, max_size=n))
    row = st.tuples(words, *[numbers] * (n - 1))
    rows = data.draw(st.lists(row, max_size=4))
    width = data.draw(st.integers(30, 130))
    blocks = list(layout(heads, rows, width))
    text = text_of(blocks)
    for figures in rows:
        for figure in figures[1:]:
            assert figure in text
    if max(map(cell_len, ["", *heads])) <= width // 3:
        assert all(cell_len(line) <= width + WORDY for line in text.splitlines())


@settings(max_examples=60, deadline=None)
@given(words, st.integers(1, 40))
def test_folding_loses_nothing(text: str, width: int) -> None:
    assert "".join(fold(text, max(2, width))).replace(" ", "") == text.replace(" ", "")


def test_cells_flow_between_cells() -> None:
    assert flow(["a.gguf  ", "Q4_K_M", "5.00 bits/weight", "0.4 s"], 24) == [
        "a.gguf    Q4_K_M",
        "  5.00 bits/weight",
        "  0.4 s",
    ]
    assert flow(["a", "b"], 80) == ["a  b"]
