"""What the commands show: the one file that knows Rich.

Results go to standard output, progress and notes to standard error. In a pipe there is no
colour, no bar and no box: plain lines.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from lfm2gguf.conversion import Draft, Progress, ProgressCallback, WrittenFile
from lfm2gguf.doctor.description import Description

if TYPE_CHECKING:
    from lfm2gguf.bench import Progress as BenchProgress
    from lfm2gguf.bench import Report
    from lfm2gguf.doctor import Diagnosis
    from lfm2gguf.verification import Verification

PLAIN_STEPS = 10  # lines of progress in a pipe
# A file's text is shown; it does not get to command the terminal.
CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))} | {10: "\\n"}
STYLES = {"error": "red", "warning": "yellow", "note": "default"}


class Display:
    """Where a command's words go, given its options."""

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet, self.json = quiet, json
        self.out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(highlight=False, stderr=True)
        if quiet or not self.err.is_terminal:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def note(self, text: str) -> None:
        """Say something beside the result."""
        if not self.quiet:
            self.err.print(text, markup=False, soft_wrap=True)

    def left_out(self, left_out: Mapping[str, str]) -> None:
        """Say which tensors are not written, those left out for the same reason together."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, reason in left_out.items():
            reasons[reason].append(name)
        for reason, names in reasons.items():
            which = names[0] if len(names) == 1 else f"{len(names)} tensors"
            self.note(f"left out: {which} ({reason})")

    @contextlib.contextmanager
    def progress(self) -> Iterator[ProgressCallback | None]:
        """A callback that shows how far the writing is, as a bar or as plain lines."""
        if self.quiet:
            yield None
        elif not self.err.is_terminal:
            yield _PlainProgress(self)
        else:
            columns = (
                TextColumn("{task.fields[tensor]}", markup=False, table_column=_column(30)),
                BarColumn(),
                TextColumn("{task.fields[tensors]} tensors, {task.fields[speed]}"),
                TimeRemainingColumn(),
            )
            with Bars(*columns, console=self.err, transient=True) as bars:
                yield _BarProgress(bars)

    def written(
        self,
        files: Sequence[WrittenFile],
        left_out: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        verified: Sequence[Verification] = (),
    ) -> None:
        """Show what was written, and in JSON how it was judged."""
        if self.json:
            self._result([file.to_json() for file in files], left_out, notes, verified)
        elif not self.quiet:
            rows = [
                (_name(f), f.type, size(f.nbytes), f"{f.bits_per_weight:.2f} bits/weight",
                 f"{f.seconds:.1f} s", speed(f.weights_per_second))
                for f in files
            ]  # fmt: skip
            self._lines(rows)

    def drafts(
        self,
        drafts: Sequence[Draft],
        left_out: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Show what would be written."""
        if self.json:
            self._result([_draft_json(draft) for draft in drafts], left_out, notes)
            return
        for draft in drafts:
            rows = [
                (t.name, " x ".join(map(str, t.shape)), t.type.name,
                 f"{t.type.bits_per_weight:g}", str(t.nbytes), str(offset), file.path.name)
                for t, (file, offset) in zip(draft.tensors, draft.places, strict=True)
            ]  # fmt: skip
            heads = ("tensor", "shape", "type", "bits/weight", "bytes", "offset", "file")
            self._table(heads, rows)
            types = ", ".join(f"{n} {name}" for name, n in draft.type_counts.items())
            self.out.print(
                f"{draft.target}: {size(draft.nbytes)}, {draft.bits_per_weight:.2f} bits/weight, "
                f"{len(draft.tensors)} tensors ({types})",
                markup=False,
            )

    def description(self, description: Description) -> None:
        """Show a file's or a checkpoint's metadata and tensors."""
        if self.json:
            self._json(description.to_json())
            return
        self._table(("key", "value"), [(k, _short(v)) for k, v in description.metadata.items()])
        rows = [
            (t.name, " x ".join(map(str, t.shape)), t.type, str(t.nbytes))
            for t in description.tensors
        ]
        self._table(("tensor", "shape", "type", "bytes"), rows)
        types = ", ".join(f"{row['tensors']} {name}" for name, row in description.by_type.items())
        bits = 8 * description.nbytes / max(1, description.n_weights)
        self.out.print(
            f"{description.path}: {description.n_weights:,} weights, {size(description.nbytes)}, "
            f"{bits:.2f} bits/weight, {len(description.tensors)} tensors ({types})",
            markup=False,
        )

    @contextlib.contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int], None] | None]:
        """A callback for work in named stages, as a bar for each or a plain line for each."""
        if self.quiet:
            yield None
        elif not self.err.is_terminal:
            yield _PlainStages(self)
        else:
            columns = (
                TextColumn("{task.description}", table_column=_column(18)),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
            )
            with Bars(*columns, console=self.err, transient=True) as bars:
                yield _BarStages(bars)

    def verifications(self, results: Sequence[Verification]) -> None:
        """Show the ladder, the gates of each file, and the verdict; if quiet, failures alone."""
        from lfm2gguf.verification.report.words import (
            conditions,
            explanation,
            gate_cells,
            headings,
            summary_cells,
        )

        failures = [
            f"{result.candidate} FAILED: {explanation(result)}"
            for result in results
            if not result.passed
        ]
        if self.quiet or self.json:  # then standard output is silent, or holds JSON alone
            for failure in failures:
                self.err.print(failure, markup=False, soft_wrap=True)
            return
        self.out.print(conditions(results[0]), markup=False, soft_wrap=True)
        if len(results) == 1:
            rows = [(gate.name, *gate_cells(gate)) for gate in results[0].gates]
            self._table(("gate", "value", "limit", "margin", "verdict"), rows)
        ladder = [summary_cells(result) for result in results]
        heads = headings(results[0])
        self._table(heads, ladder if self.out.is_terminal else [heads, *ladder])
        for failure in failures:
            self.out.print(failure, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def bench_progress(self) -> Iterator[Callable[[BenchProgress], None] | None]:
        """A callback that shows which row is being measured, and how long the rest takes."""
        if self.quiet:
            yield None
        elif not self.err.is_terminal:
            yield _PlainBench(self)
        else:
            columns = (
                TextColumn("{task.description}", table_column=_column(24)),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} runs, {task.fields[left]}"),
            )
            with Bars(*columns, console=self.err, transient=True) as bars:
                yield _BarBench(bars)

    def benchmarks(self, reports: Sequence[Report]) -> None:
        """Show a report's tables, or several reports side by side."""
        from lfm2gguf.bench.report.comparison import LEGEND, comparison_tables
        from lfm2gguf.bench.report.tables import legend, remarks, tables

        if self.quiet:
            return
        for report in reports:
            for subject in report.subjects if report.created else ():
                self.out.print(f"{subject.label}, {subject.via}", markup=False, soft_wrap=True)
                for table in tables(subject):
                    self._titled(table.title, table.heads, table.rows)
                for remark in remarks(subject):
                    self.note(remark)
            if report.created:
                self.note(legend(report))
            if report.cut:
                self.note(report.cut)
        if sum(len(report.subjects) for report in reports) > 1:
            for table in comparison_tables(reports):
                self._titled(table.title, table.heads, table.rows)
            self.note(LEGEND)

    def _titled(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.out.print(f"\n{title}", markup=False)
        self._table(heads, rows if self.out.is_terminal else [heads, *rows])

    def _result(
        self,
        files: list[dict[str, Any]],
        left_out: Mapping[str, str] | None,
        notes: Sequence[str],
        verified: Sequence[Verification] = (),
    ) -> None:
        result = {"files": files, "left_out": dict(left_out or {}), "notes": list(notes)}
        if verified:
            from lfm2gguf.verification.report.data import to_json

            result["verification"] = to_json(verified)
        self._json(result)

    def diagnosis(self, diagnosis: Diagnosis) -> None:
        """Show what is wrong with a file or a checkpoint."""
        if self.json:
            self._json(diagnosis.to_json())
            return
        for f in diagnosis.findings:
            head = f"{f.severity.value:7}  {f.id}  {f.where}: {f.what}".translate(CONTROL)
            self.out.print(head, style=STYLES[f.severity.value], markup=False, soft_wrap=True)
            remedy = f"         -> {f.remedy}".translate(CONTROL)
            self.out.print(remedy, markup=False, soft_wrap=True)
        counts = (diagnosis.errors, diagnosis.warnings, diagnosis.notes)
        words = [f"{n} {kind}{'s' * (n != 1)}" for n, kind in zip(counts, STYLES, strict=True)]
        self.out.print(f"{diagnosis.path}: {', '.join(words)}", markup=False, soft_wrap=True)

    def _json(self, value: Any) -> None:
        print(json_module.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201

    def _lines(self, rows: Sequence[Sequence[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.out.print("  ".join(cells).rstrip(), markup=False, soft_wrap=True)

    def _table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        rows = [[cell.translate(CONTROL) for cell in row] for row in rows]
        if not self.out.is_terminal:
            self._lines(rows)
            return
        table = Table(*heads, box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*map(Text, row))  # Text: what looks like markup is none
        self.out.print(table)


class _BarProgress:
    def __init__(self, bars: Bars) -> None:
        self.bars, self.began, self.task = bars, time.monotonic(), TaskID(-1)

    def __call__(self, progress: Progress) -> None:
        fields: dict[str, Any] = {
            "tensor": progress.tensor,
            "tensors": f"{progress.tensors_done}/{progress.n_tensors}",
            "speed": speed(progress.weights_done / max(1e-9, time.monotonic() - self.began)),
        }
        if self.task == -1:
            self.task = self.bars.add_task("", total=progress.n_weights, **fields)
        self.bars.update(self.task, completed=progress.weights_done, **fields)


class _BarStages:
    def __init__(self, bars: Bars) -> None:
        self.bars, self.tasks = bars, dict[str, TaskID]()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total)
        self.bars.update(self.tasks[stage], completed=done, total=total)


class _PlainStages:
    def __init__(self, display: Display) -> None:
        self.display = display

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done == total:
            self.display.note(f"{stage}: {total} of {total}")


class _BarBench:
    def __init__(self, bars: Bars) -> None:
        self.bars, self.task = bars, bars.add_task("", left="")

    def __call__(self, progress: BenchProgress) -> None:
        self.bars.update(
            self.task, description=progress.what, completed=progress.done, total=progress.total,
            left=_left(progress.left),
        )  # fmt: skip


class _PlainBench:
    def __init__(self, display: Display) -> None:
        self.display, self.what = display, ""

    def __call__(self, progress: BenchProgress) -> None:
        if progress.what != self.what:
            self.what = progress.what
            done = f"{progress.done} of {progress.total} runs"
            self.display.note(f"{done}, now {progress.what}, {_left(progress.left)}")


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not yet known"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


class _PlainProgress:
    def __init__(self, display: Display) -> None:
        self.display, self.began, self.step = display, time.monotonic(), 0

    def __call__(self, progress: Progress) -> None:
        step = PLAIN_STEPS * progress.weights_done // progress.n_weights
        if step == self.step:
            return
        self.step = step
        rate = progress.weights_done / max(1e-9, time.monotonic() - self.began)
        left = (progress.n_weights - progress.weights_done) / rate
        self.display.note(
            f"{100 * step // PLAIN_STEPS:3d}%  {progress.tensors_done}/{progress.n_tensors} tensors"
            f"  {speed(rate)}  {left:.0f} s left"
        )


def size(nbytes: int) -> str:
    """Bytes as a person reads them, in powers of 1000 like the Hub's pages."""
    value, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def speed(rate: float) -> str:
    """Weights per second, in millions."""
    return f"{rate / 1e6:.1f} M weights/s"


def _short(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"length", "first"}:
        return f"{value['length']} items: {_short(value['first'])[:-1]}, ...]"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _name(file: WrittenFile) -> str:
    return f"{file.path} ({file.n_files} files)" if file.n_files > 1 else str(file.path)


def _draft_json(draft: Draft) -> dict[str, Any]:
    return {
        "path": str(draft.target),
        "type": draft.type.name,
        "bytes": draft.nbytes,
        "weights": draft.n_weights,
        "bits_per_weight": round(draft.bits_per_weight, 4),
        "tensor_types": draft.type_counts,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.nbytes,
             "offset": offset, "file": file.path.name}
            for t, (file, offset) in zip(draft.tensors, draft.places, strict=True)
        ],
    }  # fmt: skip


def _column(width: int) -> Any:
    from rich.table import Column

    return Column(min_width=width, max_width=width, no_wrap=True)
