"""The page in a real browser, and what must be true of it without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.bench import Report, Row, Sample, Subject, published
from lfm2gguf.bench.report.page import page
from lfm2gguf.rendering import Curve, Dots, draw_curves, draw_dots
from tests.bench.test_reports import HOSTILE, made
from tests.making.browser import screenshot
from tests.making.html import check_report


def measured() -> Report:
    """A report with both suites, of the size that people will have."""
    depth = [
        Row("depth", f"{2**i}k", 1, {"decode": Sample.of([60 - 3 * i, 61 - 3 * i, 58 - 3 * i]),
            "prefill": Sample.of([900 - 40 * i, 880 - 40 * i])}, runs=3, roofline=90.0, share=0.6)
        for i in range(6)
    ]  # fmt: skip
    requests = [
        Row("workloads", name, n, {id: Sample.of([1 + i * n, 1.1 + i * n, 1.3 + i * n])
            for id in ("decode", "prefill", "latency", "first_token", "output_tokens")}, runs=3)
        for i, (name, n) in enumerate((("chat", 1), ("rag", 1), ("agent", 1), ("agent", 4)))
    ]  # fmt: skip
    name = "LFM2-1.2B-with-a-rather-long-name-of-a-fine-tune-Q4_K_M.gguf"
    subject = Subject(name, "in process", HOSTILE, (*depth, *requests), {"depth 64k": "no"})
    return Report((subject,), made().settings, {"processor": HOSTILE}, "2026-01-02", None)


@pytest.mark.parametrize("reports", [[measured()], [measured(), *published()], published()])
def test_a_page_is_whole_and_fetches_nothing(reports: list[Report]) -> None:
    check_report(page(reports))


def test_plots_stay_within_their_frame() -> None:
    drawn = [
        draw_curves("t", "u", [Curve("a", [(1024, 1, 2, 3), (32768, 1, 1, 1)]), Curve("b", [])]),
        draw_curves("t", "u", [Curve("one point", [(1000, 0.001, 0.001, 0.001)])]),
        draw_dots("t", "u", [Dots("a very long name of a workload and more", [0.1, 12345.6], 7.0)]),
    ]
    for svg in drawn:
        width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
        xs = [float(x) for x in re.findall(r' (?:c?x|x1|x2)="([\d.-]+)"', svg)]
        ys = [float(y) for y in re.findall(r' (?:c?y|y1|y2)="([\d.-]+)"', svg)]
        assert xs
        assert min(xs) >= 0
        assert max(xs) <= width
        assert min(ys) >= 0
        assert max(ys) <= height


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1400, "dark")])
def test_in_a_browser(browser: Any, width: int, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page([measured(), *published()]), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    requested: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: requested.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(path.as_uri())
    picture = screenshot(tab, f"bench-{width}-{scheme}", tmp_path, full_page=True)
    assert picture.stat().st_size > 20_000
    assert requested == [path.as_uri()]
    assert said == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    bright = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright == (scheme == "light")
    words = tab.locator("svg text").all()
    sizes = [box["height"] for word in words[:60] if (box := word.bounding_box())]
    assert sizes
    assert min(sizes) >= 9  # pixels
    plots = [figure.bounding_box() for figure in tab.locator("figure").all()]
    assert len(plots) == 4
    assert len({box["x"] for box in plots}) == (1 if width < 500 else 2)
    context.close()
