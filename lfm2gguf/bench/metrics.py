"""What is measured, and how figures come of it: the one place of every definition.

A :class:`Measurement` is what the client saw of one request. :data:`METRICS` turns it into the
columns of the published tables, and a :class:`Sample` is such a column over all runs of a cell.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

USAGE, TOKENIZER, CHUNKS, RUNTIME = "usage", "tokenizer", "chunks", "runtime"


@dataclass(frozen=True)
class Measurement:
    """One request, or one run at one depth. Times in seconds since the request was sent.

    ``first`` and ``last`` are when the first and the last token arrived, ``total`` is when the
    answer ended, and ``steps`` counts the tokens decoded between ``first`` and ``last``.
    ``cached_tokens`` of the prompt were not computed (None: not known). ``counted`` says who
    counted the tokens: the server's ``usage``, the file's ``tokenizer``, the ``runtime``, or
    nobody (``chunks`` of the stream).
    """

    prompt_tokens: int | None
    output_tokens: int
    first: float
    last: float
    total: float
    steps: int
    cached_tokens: int | None = None
    counted: str = RUNTIME
    guessed_right: int | None = None  # tokens that were guessed, and needed no step of their own


@dataclass(frozen=True)
class Sample:
    """A figure over the runs of a cell: the median, and how far the runs lie apart.

    A published figure has no values and no spread: ``low`` and ``high`` are None.
    """

    median: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """Summarise at least one value."""
        given = tuple(map(float, values))
        return cls(statistics.median(given), min(given), max(given), given)

    @property
    def spread(self) -> float | None:
        """Half the range, as a share of the median; None where it is not known."""
        if self.low is None or self.high is None or len(self.values) == 1 or not self.median:
            return None
        return (self.high - self.low) / 2 / abs(self.median)


@dataclass(frozen=True)
class Metric:
    """A column: its name in JSON, its heading, unit and decimals, and its definition.

    ``better`` is 1 where more is better, -1 where less is, 0 where it is a condition.
    """

    id: str
    heading: str
    unit: str
    decimals: int
    better: int
    of: Callable[[Measurement], float | None]
    scale: float = 1.0  # from the unit of JSON and CSV to the one that tables show

    @property
    def si_unit(self) -> str:
        """The unit in JSON and CSV, where times are in seconds."""
        return "s" if self.unit == "ms" else self.unit


def _decode(m: Measurement) -> float | None:
    return m.steps / (m.last - m.first) if m.steps > 0 and m.last > m.first else None


def _per_token(m: Measurement) -> float | None:
    return (m.last - m.first) / m.steps if m.steps > 0 and m.last > m.first else None


def _per_step(m: Measurement) -> float | None:
    """Tokens for each time that the model was computed, the first token left out."""
    if m.guessed_right is None or m.steps < 1:
        return None
    return m.steps / max(1, m.steps - m.guessed_right)


def _prefill(m: Measurement) -> float | None:
    return m.prompt_tokens / m.first if m.prompt_tokens and m.first > 0 else None


METRICS: Mapping[str, Metric] = {
    metric.id: metric
    for metric in (
        Metric("decode", "decode", "tokens/s", 1, 1, _decode),
        Metric("end_to_end", "e2e", "tokens/s", 1, 1, lambda m: m.output_tokens / m.total),
        Metric("prefill", "prefill", "tokens/s", 1, 1, _prefill),
        Metric("first_token", "TTFT", "ms", 0, -1, lambda m: m.first, 1e3),
        Metric("per_token", "ms/token", "ms", 2, -1, _per_token, 1e3),
        Metric("per_step", "tokens/step", "tokens", 2, 1, _per_step),
        Metric("prompt_tokens", "prompt", "tokens", 0, 0, lambda m: m.prompt_tokens),
        Metric("output_tokens", "out", "tokens", 0, 0, lambda m: m.output_tokens),
        Metric("latency", "latency", "s", 2, -1, lambda m: m.total),
        Metric("throughput", "throughput", "tokens/s", 1, 1, lambda _: None),  # of a wave
    )
}


def summarise(measurements: Iterable[Measurement]) -> dict[str, Sample]:
    """Give every metric that the measurements allow, by its id."""
    given = list(measurements)
    columns = {metric.id: [metric.of(m) for m in given] for metric in METRICS.values()}
    known = {id: [v for v in column if v is not None] for id, column in columns.items()}
    return {id: Sample.of(values) for id, values in known.items() if values}
