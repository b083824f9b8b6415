"""Tables, values and pictures that nothing which stands in them can break."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.rendering import (
    Line,
    Panel,
    Table,
    csv_text,
    draw_panels,
    dumps,
    markdown_table,
    plain,
    tokens,
    values,
)
from lfm2gguf.rendering.labels import Box, place
from lfm2gguf.rendering.palette import COLORS, CURVES
from lfm2gguf.rendering.svg import Scale, decades, element, round_up, ticks

NUMBERS = st.floats(1e-9, 1e12)


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_a_markdown_table_keeps_its_cells(heads: list[str], row: list[str]) -> None:
    lines = list(markdown_table(Table("", heads, [row])))
    assert lines[1] == "| --- | ---: |"
    assert {len(line.splitlines()) for line in lines} == {1}
    assert {line.replace("\\|", "").count("|") for line in lines} == {3}
    assert not any("<" in line for line in lines)


def test_csv_quotes_what_needs_it() -> None:
    assert csv_text(("a", "b"), [("x,y", None), ('"', 1)]) == 'a,b\n"x,y",\n"""",1\n'


def test_what_json_does_not_know_becomes_null() -> None:
    value = {"a": [1.23456789, math.nan], "b": (math.inf, 2, True, None, "é")}
    assert plain(value, digits=3) == {"a": [1.23, None], "b": [None, 2, True, None, "é"]}
    assert json.loads(dumps(value, indent=1)) == plain(value)
    assert "é" in dumps(value, indent=1)


@given(NUMBERS, NUMBERS, st.booleans())
def test_a_scale_keeps_values_between_its_ends(a: float, b: float, logarithmic: bool) -> None:
    low, high = sorted((a, b))
    scale = Scale(low, high, 10, 90, logarithmic)
    assert all(10 - 1e-6 <= scale.at(x) <= 90 + 1e-6 for x in (low, high, math.sqrt(low * high)))
    if high > low * 1.001:
        assert (scale.at(low), scale.at(high)) == pytest.approx((10, 90))


@given(NUMBERS, NUMBERS)
def test_ticks_are_few_and_within(a: float, b: float) -> None:
    low, high = sorted((a, b))
    if high > low * 1.001:
        found = ticks(low, high)
        assert 3 <= len(found) <= 9
        assert all(low * 0.999 <= x <= high * 1.001 for x in found)
    assert round_up(a) >= a * (1 - 1e-6)
    assert decades([a])[0] <= math.log10(a) <= decades([a])[1]


@pytest.mark.parametrize("lines", [[], [Line("a", [], [])], [Line("<&\"'", [1.0], [0.0])]])
def test_a_picture_without_points_is_a_picture(lines: list[Line]) -> None:
    panels = [Panel("t", "x", "y", lines), Panel("u", "x", "y", lines)]
    root = ElementTree.fromstring(draw_panels(panels, [line.label for line in lines]))
    assert root.get("viewBox", "").startswith("0 0 1040 ")
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(line.label in texts for line in lines)


def test_elements_escape_what_they_hold() -> None:
    written = element("text", "<b>&'", class_="a", text_anchor='"<', x=1.25, y=2)
    assert written == (
        '<text class="a" text-anchor="&quot;&lt;" x="1.2" y="2">&lt;b&gt;&amp;\'</text>'
    )


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 330)), max_size=12))
def test_names_of_dots_stay_apart(at: list[tuple[float, float]]) -> None:
    frame, dots = Box(0, 0, 400, 330), [Box(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    taken = list(dots)
    placed = list(place([f"Q{i}_K_M" for i in range(len(at))], at, taken, frame))
    boxes = taken[len(dots) :]
    assert len(placed) == len(boxes)
    assert all(frame.holds(box) for box in boxes)
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in [*dots, *boxes[:i]])


def test_a_page_follows_the_system_or_its_own_choice() -> None:
    style = tokens()
    for name, (light, dark) in COLORS.items():
        assert style.count(f"--{name}:{light};") >= 2
        assert style.count(f"--{name}:{dark};") >= 2
    assert "prefers-color-scheme:dark" in style


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("name", ["text", "soft", "good", "bad", *(f"c{i}" for i in range(CURVES))])
def test_colours_can_be_read(name: str, scheme: int) -> None:
    """A contrast of 4.5 on the page and on cards (WCAG 2.1, 1.4.3)."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ground in ("back", "card"):
        a, b = sorted(luminance(COLORS[key][scheme]) for key in (name, ground))
        assert (b + 0.05) / (a + 0.05) >= 4.5


def test_json_commands_no_terminal() -> None:
    """Texts of a file, such as its metadata's, come back whole, and hold no control character."""
    said = {"é\x7f": "".join(map(chr, range(0x100)))}
    text = values.dumps(said, 1)
    assert json.loads(text) == said
    assert not [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    assert "é" in text
