"""How far long work has come, where somebody looks: a terminal's bar, a notebook's, or lines.

All say the rate and the time left.
"""

from __future__ import annotations

import html
import sys
import time
from typing import Any, TextIO

from lfm2gguf.progress import Progress, ProgressCallback

PLAIN_STEPS = 10  # lines of a stage in a pipe, at most
NOTEBOOK_SECONDS = 0.2  # between two changes of a notebook's bar
WIDE, NARROW = 110, 72  # columns of a terminal from which on there is room for more


def progress_bar() -> ProgressCallback:
    """Return a callback for ``progress=``: a bar in a notebook or a terminal, else plain lines.

    The lines and the terminal's bar go to standard error.
    """
    if in_notebook():
        return NotebookBar()
    return TerminalBar() if sys.stderr.isatty() else PlainLines()


def in_notebook() -> bool:
    """Whether this Python is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class Pace:
    """How fast a stage goes, measured since the one before it ended."""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._latest = self._began = time.monotonic()
        self._base = 0

    def words(self, now: Progress) -> str:
        """Return units per second and the time left, as a person reads them."""
        if self._last is None or self._last.stage != now.stage:
            goes_on = self._last is not None and self._last.done <= now.done > 0
            self._base = self._last.done if self._last and goes_on else 0
            self._began = self._latest
        self._last, self._latest = now, time.monotonic()
        rate = (now.done - self._base) / max(1e-9, self._latest - self._began)
        left = now.left
        if left is None and rate:
            left = (now.total - now.done) / rate
        scaled = f"{rate / 1e6:.1f} M" if rate >= 1e5 else f"{rate:.1f}"
        return f"{scaled} {now.unit}/s  {_time_left(left)}"


class PlainLines:
    """A line for each new stage that says where it is, and for each tenth of the work."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._pace = stream, Pace()
        self._shown = ("", 0)

    def __call__(self, now: Progress) -> None:
        """Show a report."""
        pace = self._pace.words(now)
        step = PLAIN_STEPS * now.done // max(1, now.total)
        if self._shown == (now.stage, step):
            return
        self._shown = (now.stage, step)
        parts = (f"{now.stage} {100 * step // PLAIN_STEPS:3d}%", note(now), pace)
        print(clean("  ".join(parts)), file=self._stream or sys.stderr, flush=True)


class TerminalBar:
    """A bar that is wiped away when its stage ends, and comes back with the next."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._pace = Pace()
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, now: Progress) -> None:
        """Show a report."""
        if self._bars is None:
            self._bars = self._make()
            self._bars.start()
            self._task = self._bars.add_task("", total=None, note="", pace="")
        self._bars.update(
            self._task, description=clean(now.stage), completed=now.done, total=now.total,
            note=note(now), pace=self._pace.words(now),
        )  # fmt: skip
        if now.done >= now.total:
            self.close()

    def close(self) -> None:
        """Wipe the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _make(self) -> Any:
        """Return Rich's bar: the narrower the terminal, the less of it beside rate and time."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        width = self._console.width
        named = 18 if width >= NARROW else 10
        columns: list[Any] = [
            TextColumn("{task.description}", markup=False, table_column=_fixed(Column, named)),
            BarColumn(None if width >= WIDE else 20 if width >= NARROW else 6),
        ]
        if width >= WIDE:
            noted = _fixed(Column, 44)
            columns.append(TextColumn("{task.fields[note]}", markup=False, table_column=noted))
        columns.append(
            TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True))
        )
        return Bars(*columns, console=self._console, transient=True)


class NotebookBar:
    """A bar in a cell's output, which changes in place."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._handle: Any = None
        self._shown = 0.0

    def __call__(self, now: Progress) -> None:
        """Show a report."""
        pace, moment = self._pace.words(now), time.monotonic()
        if now.done < now.total and moment - self._shown < NOTEBOOK_SECONDS:
            return
        self._shown = moment
        from IPython.display import HTML, display

        bar = HTML(bar_html(now, pace))
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        elif self._handle is not None:
            self._handle.update(bar)


def bar_html(now: Progress, pace: str) -> str:
    """Return a report as HTML: the stage, a bar, what it has come to, rate and time left."""
    words = [html.escape(text) for text in (now.stage, note(now), pace)]
    bar = f'<progress value="{now.done}" max="{max(1, now.total)}"></progress>'
    return f"<div>{words[0]} {bar} {words[1]}  {words[2]}</div>"


def note(now: Progress) -> str:
    """Return what a report has come to."""
    return clean(now.note or f"{now.done}/{now.total} {now.unit}")


def clean(text: str) -> str:
    """Return a text without characters that command a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _fixed(column: Any, width: int) -> Any:
    return column(min_width=width, max_width=width, no_wrap=True)


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not yet known"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
