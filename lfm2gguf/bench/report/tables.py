"""A report as tables: the rows for people, Markdown and CSV.

Depth tables have a column for each context, as published; workload tables a row for each cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lfm2gguf.bench.cells import DEPTH, WORKLOADS
from lfm2gguf.bench.metrics import METRICS, Sample
from lfm2gguf.bench.report.data import Report, Row, Subject
from lfm2gguf.rendering import Table, csv_text, escaped, markdown_table

DEPTH_METRICS = ("decode", "prefill")
WORKLOAD_METRICS = ("decode", "end_to_end", "prefill", "first_token", "per_token", "per_step",
                    "prompt_tokens", "output_tokens", "latency", "throughput")  # fmt: skip
UNKNOWN = "-"
GIB = 2**30


def figure(id: str, sample: Sample | None, *, spread: bool = True) -> str:
    """Write a figure in its column's unit, with its spread where it has one: ``62.1 ±1.2%``."""
    if sample is None:
        return UNKNOWN
    metric = METRICS[id]
    text = f"{sample.median * metric.scale:.{metric.decimals}f}"
    if not spread or sample.spread is None or metric.better == 0:
        return text
    return f"{text} ±{100 * sample.spread:.1f}%"


def heading(id: str) -> str:
    """Write a column's heading with its unit: ``TTFT (ms)``."""
    metric = METRICS[id]
    return metric.heading if metric.unit in metric.heading else f"{metric.heading} ({metric.unit})"


def tables(subject: Subject) -> list[Table]:
    """Return the tables of a subject; those without rows are left out."""
    return [
        table for table in (_depth(subject), _workloads(subject), _roofline(subject)) if table.rows
    ]


def _depth(subject: Subject) -> Table:
    rows = [row for row in subject.rows if row.suite == DEPTH]
    lines = [
        (heading(id), *(figure(id, row.metrics.get(id)) for row in rows)) for id in DEPTH_METRICS
    ]
    return Table("Speed over depth", ("", *(row.name for row in rows)), lines if rows else ())


def _workloads(subject: Subject) -> Table:
    rows = [row for row in subject.rows if row.suite == WORKLOADS]
    heads = ("workload", "at once", *map(heading, WORKLOAD_METRICS), "memory growth (GiB)")
    return Table("Workloads", heads, [_workload_cells(row) for row in rows])


def _workload_cells(row: Row) -> tuple[str, ...]:
    figures = (figure(id, row.metrics.get(id)) for id in WORKLOAD_METRICS)
    growth = UNKNOWN if row.memory_growth is None else f"{row.memory_growth / GIB:.3f}"
    return (row.name, str(row.concurrency), *figures, growth)


def _roofline(subject: Subject) -> Table:
    rows = [row for row in subject.rows if row.roofline and row.share]
    heads = ("", "decode (tokens/s)", "memory allows (tokens/s)", "reached")
    cells = [
        (
            f"{row.suite} {row.name}" if row.suite == DEPTH else row.label,
            figure("decode", row.metrics["decode"], spread=False),
            f"{row.roofline:.1f}",
            f"{100 * (row.share or 0):.0f} %",
        )
        for row in rows
    ]
    return Table("Decode speed against memory bandwidth", heads, cells)


def facts(report: Report) -> list[tuple[str, str]]:
    """Return environment and settings as pairs of words."""
    return [*_flat(report.environment), *_flat(report.settings)]


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            for item in value:
                yield name, ", ".join(map(str, item.values()))
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        elif key == "memory_bytes":
            yield "memory", f"{value / GIB:.1f} GiB"
        elif value is not None:
            yield name, str(value)


def subject_facts(subject: Subject) -> list[tuple[str, str]]:
    """Return what a subject is, ran on, and what its device can do, as pairs of words."""
    found = [("measured", subject.via), ("machine", subject.machine)]
    if subject.source:
        found.append(("source", subject.source))
    if subject.file:
        about = subject.file
        kind = f"{about['architecture']} {about['type']}, {about['bytes'] / 1e6:.1f} MB"
        found += [("file", f"{about['name']}, {kind}"), ("sha256", about["sha256"])]
        found.append(("weights read for a token", f"{about['bytes_read_per_token'] / 1e6:.1f} MB"))
    if subject.device:
        found += list(_flat(subject.device))
    if subject.probes:
        p = subject.probes
        found += [
            ("memory copy (read and written)", f"{p['copy'] / 1e9:.1f} GB/s"),
            ("memory read", f"{p['read'] / 1e9:.1f} GB/s"),
            ("matrix rate, float16", f"{p['matrix'] / 1e12:.3g} TFLOP/s"),
        ]
    return found


def remarks(subject: Subject) -> list[str]:
    """Return what a reader must know: what was left out and why, and notes."""
    out = [f"left out: {what} ({why})" for what, why in subject.left_out.items()]
    cached = max((row.cached_tokens or 0 for row in subject.rows), default=0)
    known = any(row.cached_tokens is not None for row in subject.rows)
    if known:
        out.append(f"prompt tokens that came from a cache: {cached} at most")
    counted = {row.counted for row in subject.rows if row.counted}
    if counted:
        out.append(f"tokens counted by: {', '.join(sorted(counted))}")
    if any((row.share or 0) > 1 for row in subject.rows):
        out.append(
            "more than memory allows was reached: something disturbed the probes, measure again"
        )
    return [*out, *subject.notes]


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield "# lfm2gguf bench"
    yield ""
    if report.cut:
        yield f"**Incomplete: {escaped(report.cut)}.**"
        yield ""
    yield legend(report)
    for subject in report.subjects:
        yield ""
        yield f"## {escaped(subject.label)}"
        for table in tables(subject):
            yield ""
            yield f"### {table.title}"
            yield ""
            yield from markdown_table(table)
        yield ""
        yield from (f"- {escaped(remark)}" for remark in remarks(subject))
        yield from (f"- {key}: {escaped(value)}" for key, value in subject_facts(subject))
    yield ""
    yield "## Environment and settings"
    yield ""
    yield from markdown_table(Table("", ("", ""), facts(report), texts=2))


def legend(report: Report) -> str:
    """Say how the figures are to be read."""
    given = report.settings
    if not given:
        return "Figures as published."
    at_most = "at most " if report.cut else ""
    runs, warm_ups = _number(given["runs"], "run"), _number(given["warm_ups"], "warm-up")
    return (
        f"Median of {at_most}{runs} after {warm_ups}; "
        "± is half the range, in per cent of the median. "
        f"Greedy. Prompt caches: {given['prompt_caches']}."
    )


def _number(count: object, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


def as_csv(reports: Sequence[Report]) -> str:
    """Return one line for each figure of each row, in SI units, for a spreadsheet."""
    heads = ("model", "machine", "via", "suite", "cell", "concurrency", "metric", "unit",
             "median", "low", "high", "runs")  # fmt: skip
    lines = [
        (
            subject.name, subject.machine, subject.via, row.suite, row.name, row.concurrency, id,
            METRICS[id].si_unit, *map(_short, (sample.median, sample.low, sample.high)), row.runs,
        )
        for report in reports for subject in report.subjects for row in subject.rows
        for id, sample in row.metrics.items()
    ]  # fmt: skip
    return csv_text(heads, lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
