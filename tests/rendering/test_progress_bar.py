"""The display of progress: what each kind says of rate and time left."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from lfm2gguf.progress import Progress
from lfm2gguf.rendering import PlainLines, TerminalBar, progress_bar
from lfm2gguf.rendering.progress_bar import NotebookBar, Pace, bar_html, in_notebook

WORK = [
    Progress("writing", n * 10**6, 10**7, "weights", f"blk.{n}.ffn_down.weight") for n in range(11)
]


def test_lines_have_rate_and_time_left() -> None:
    out = io.StringIO()
    lines = PlainLines(out)
    for now in WORK:
        time.sleep(0.001)
        lines(now)
    said = out.getvalue().splitlines()
    assert len(said) == 11
    assert re.fullmatch(
        r"writing  50%  blk\.5\.ffn_down\.weight  [\d.]+ M weights/s  about 0 s left", said[5]
    )
    lines(Progress("\x1b[2J", 0, 1, "runs"))
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminals_bar_shows_rate_and_time_at_every_width(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    bar = TerminalBar(console)
    for now in WORK[:4]:
        bar(now)
    bar.close()  # Rich draws for the last time
    drawn = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n")
    shown = [line for line in drawn.splitlines() if "weights/s" in line]
    assert shown
    assert re.search(r"M weights/s  about \d+ s left\s*$", shown[-1])
    assert max(map(len, shown)) <= width
    assert "…" not in drawn


def test_a_bar_comes_back_for_the_next_stage() -> None:
    bar = TerminalBar(Console(file=io.StringIO(), force_terminal=True))
    bar(WORK[-1])
    bar(Progress("verification", 1, 8, "layers"))
    bar.close()
    bar.close()


def test_a_notebooks_bar_is_html_that_quotes_what_it_shows() -> None:
    now = Progress("<b>", 1, 4, "runs", "a & b")
    html = bar_html(now, Pace().words(now))
    assert html.startswith('<div>&lt;b&gt; <progress value="1" max="4"></progress> a &amp; b')
    assert "runs/s  about 0 s left" in html or "left" in html


def test_who_looks_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    show = progress_bar()
    assert isinstance(show, PlainLines)
    show(WORK[5])
    assert "writing  50%" in capsys.readouterr().err


def test_in_a_kernel_the_bar_changes_in_place() -> None:
    """IPython's own shell of a kernel, made without a front end."""
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        bar = NotebookBar()
        bar(WORK[0])
        bar(WORK[-1])
    assert captured.outputs
