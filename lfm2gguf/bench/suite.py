"""Measuring the cells of a benchmark, one after another.

What is measured answers to a :class:`Source`: a file in this process, or a server. Runs of a
cell follow each other, so that an interruption leaves whole rows, and the last one with fewer
runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lfm2gguf.bench.cells import Cell
from lfm2gguf.bench.metrics import Measurement, Sample, summarise
from lfm2gguf.bench.report.data import Row
from lfm2gguf.bench.workloads import Numbers
from lfm2gguf.errors import EndpointError, Lfm2ggufError
from lfm2gguf.progress import Progress, ProgressCallback

# of a depth; what else there is depends on how many tokens are decoded there
DEPTH_METRICS = ("decode", "prefill", "first_token", "per_token", "prompt_tokens", "output_tokens")


class Source(Protocol):
    """Where answers come from."""

    def prepare(self, cell: Cell) -> None:
        """Make ready for a cell.

        Raises:
            Lfm2ggufError: it cannot be measured.

        """

    def measure(self, cell: Cell, numbers: Sequence[int]) -> list[Measurement]:
        """Send the requests of one run, together, and wait for all answers."""

    def resident(self) -> int | None:
        """Return the bytes of memory that the process holds; None where that is unknown."""

    def close(self) -> None:
        """Release all resources."""


@dataclass
class Outcome:
    """What was measured, what was not and why, and where it was interrupted."""

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    cut: str | None = None


class Suite:
    """The cells, how often each is measured, and how far that has come."""

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        runs: int,
        warm_ups: int,
        prompt_cache: bool = False,
        progress: ProgressCallback | None = None,
        label: str = "",
    ) -> None:
        self.cells, self.runs, self.warm_ups = list(cells), runs, warm_ups
        self._progress, self._label = progress, label
        self._pace = _Pace()
        self._numbers = Numbers(vary=not prompt_cache)
        self._varied = Numbers(vary=True)  # a depth is always computed anew

    def measure(self, source: Source) -> Outcome:
        """Measure all cells. A cell that cannot be measured is left out, and said.

        An interrupt (Ctrl-C) ends it; the outcome holds what was measured until then.
        """
        outcome = Outcome()
        for index, cell in enumerate(self.cells):
            measured: list[list[Measurement]] = []
            waves: list[float] = []
            before: int | None = None
            try:
                self._tell(index, cell, 0)
                source.prepare(cell)
                self._warm_up(source, cell, index)
                before = source.resident()
                for run in range(self.runs):
                    began = time.perf_counter()
                    measured.append(source.measure(cell, self._take(cell)))
                    waves.append(time.perf_counter() - began)
                    self._pace.note(cell, waves[-1])
                    self._tell(index, cell, self.warm_ups + run + 1)
            except KeyboardInterrupt:
                outcome.cut = self._cut(index, len(measured))
            except EndpointError as error:
                if not outcome.rows and not measured:
                    raise  # a server that never answered
                outcome.left_out[cell.label] = str(error)
            except Lfm2ggufError as error:
                outcome.left_out[cell.label] = str(error)
            if measured:
                outcome.rows.append(_row(cell, measured, waves, before, source.resident()))
            if outcome.cut:
                break
        return outcome

    def _warm_up(self, source: Source, cell: Cell, index: int) -> None:
        for done in range(self.warm_ups):
            source.measure(cell.warm_up, self._take(cell))
            self._tell(index, cell, done + 1)

    def _take(self, cell: Cell) -> list[int]:
        return (self._varied if cell.is_depth else self._numbers).take(cell.concurrency)

    def _cut(self, index: int, runs: int) -> str:
        cell = self.cells[index]
        missing = [c.label for c in self.cells[index + bool(runs) :]]
        partly = f"{cell.label} has {runs} of {self.runs} runs" if runs else ""
        rest = f"not measured: {', '.join(missing)}" if missing else ""
        return "interrupted; " + "; ".join(filter(None, (partly, rest)))

    def _tell(self, index: int, cell: Cell, done: int) -> None:
        if self._progress is None:
            return
        each = self.warm_ups + self.runs
        left = self._pace.left([(cell, each - done), *((c, each) for c in self.cells[index + 1 :])])
        what = f"{self._label}: {cell.label}" if self._label else cell.label
        total = len(self.cells) * each
        self._progress(Progress(what, index * each + done, total, "runs", left=left))


class _Pace:
    """Seconds of a unit of work: a prompt token counts 1, an output token 8.

    About what a processor needs for them; the latest cell of the same suite knows best.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, cell: Cell, seconds: float) -> None:
        self._seconds[cell.suite] = seconds / self._work(cell)

    def left(self, cells: Sequence[tuple[Cell, int]]) -> float | None:
        if not self._seconds:
            return None
        other = max(self._seconds.values())
        return sum(n * self._work(c) * self._seconds.get(c.suite, other) for c, n in cells)

    @staticmethod
    def _work(cell: Cell) -> float:
        return (cell.prompt + 8 * cell.output) * cell.concurrency


def _row(
    cell: Cell,
    measured: Sequence[Sequence[Measurement]],
    waves: Sequence[float],
    before: int | None,
    after: int | None,
) -> Row:
    requests = [m for run in measured for m in run]
    metrics = summarise(requests)
    if cell.is_depth:
        metrics = {id: metrics[id] for id in DEPTH_METRICS if id in metrics}
    else:
        outputs = [sum(m.output_tokens for m in run) for run in measured]
        metrics["throughput"] = Sample.of(
            n / seconds for n, seconds in zip(outputs, waves, strict=True)
        )
    cached = [m.cached_tokens for m in requests if m.cached_tokens is not None]
    return Row(
        cell.suite,
        cell.name,
        cell.concurrency,
        metrics,
        runs=len(measured),
        memory_growth=None if before is None or after is None else after - before,
        cached_tokens=max(cached, default=None),
        counted=requests[0].counted,
    )
