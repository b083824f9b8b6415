"""How far long work has come, on standard error: a bar on a terminal, else plain lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from lfm2gguf.progress import Progress, ProgressCallback
from lfm2gguf_cli.console import CONTROL, Display

PLAIN_STEPS = 10  # lines of a stage in a pipe, at most


@contextlib.contextmanager
def progress_of(display: Display) -> Iterator[ProgressCallback | None]:
    """Give a callback that shows a command's progress; None where it is to be quiet."""
    if display.quiet:
        yield None
    elif not display.err.is_terminal:
        yield _Lines(display)
    else:
        columns = (
            TextColumn("{task.description}", markup=False, table_column=_column(18)),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False, table_column=_column(44)),
            TextColumn("{task.fields[pace]}", markup=False),
        )
        with Bars(*columns, console=display.err, transient=True) as bars:
            yield _Bar(bars)


class _Pace:
    """How fast a stage goes, measured since the one before it ended."""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._latest = self._began = time.monotonic()
        self._base = 0

    def read(self, now: Progress) -> tuple[float, float | None]:
        """Return units per second, and the seconds left; None where that cannot be told."""
        if self._last is None or self._last.stage != now.stage:
            goes_on = self._last is not None and self._last.done <= now.done > 0
            self._base = self._last.done if self._last and goes_on else 0
            self._began = self._latest
        self._last, self._latest = now, time.monotonic()
        rate = (now.done - self._base) / max(1e-9, self._latest - self._began)
        if now.left is not None or not rate:
            return rate, now.left
        return rate, (now.total - now.done) / rate


class _Bar:
    def __init__(self, bars: Bars) -> None:
        self._bars, self._pace = bars, _Pace()
        self._task = bars.add_task("", total=None, note="", pace="")

    def __call__(self, now: Progress) -> None:
        pace = _pace(now, *self._pace.read(now))
        self._bars.update(
            self._task, description=_clean(now.stage), completed=now.done, total=now.total,
            note=_note(now), pace=pace,
        )  # fmt: skip


class _Lines:
    """A line for each new stage that says where it is, and for each tenth of the work."""

    def __init__(self, display: Display) -> None:
        self._display, self._pace = display, _Pace()
        self._shown = ("", 0)

    def __call__(self, now: Progress) -> None:
        pace = _pace(now, *self._pace.read(now))
        step = PLAIN_STEPS * now.done // max(1, now.total)
        if self._shown == (now.stage, step):
            return
        self._shown = (now.stage, step)
        parts = (f"{now.stage} {100 * step // PLAIN_STEPS:3d}%", _note(now), pace)
        self._display.note("  ".join(parts).translate(CONTROL))


def _note(now: Progress) -> str:
    return _clean(now.note or f"{now.done}/{now.total} {now.unit}")


def _pace(now: Progress, rate: float, left: float | None) -> str:
    scaled = f"{rate / 1e6:.1f} M" if rate >= 1e5 else f"{rate:.1f}"
    return f"{scaled} {now.unit}/s  {_time_left(left)}"


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not yet known"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


def _clean(text: str) -> str:
    return text.translate(CONTROL)


def _column(width: int) -> Column:
    return Column(min_width=width, max_width=width, no_wrap=True)
