"""A report as one HTML page: tables and plots, nothing fetched from anywhere, no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from lfm2gguf.bench.cells import DEPTH, WORKLOADS, tokens
from lfm2gguf.bench.metrics import METRICS
from lfm2gguf.bench.report.comparison import LEGEND, comparison_tables, differences
from lfm2gguf.bench.report.data import Report, Subject
from lfm2gguf.bench.report.tables import facts, legend, remarks, subject_facts, tables
from lfm2gguf.rendering import (
    Curve,
    Dots,
    Table,
    document,
    draw_curves,
    draw_dots,
    figures,
    folded,
    html_figure,
    html_table,
    keys,
)

CURVES = ("decode", "prefill")
DISTRIBUTIONS = ("latency", "first_token")


def page(reports: Sequence[Report]) -> str:
    """Return the page of one report, or of several side by side."""
    subjects = [subject for report in reports for subject in report.subjects]
    title = subjects[0].label if subjects else "nothing was measured"
    return "\n".join(document("lfm2gguf bench", title, _body(reports, subjects))) + "\n"


def _body(reports: Sequence[Report], subjects: Sequence[Subject]) -> Iterator[str]:
    measured = [report for report in reports if report.created]
    for report in measured:
        if report.cut:
            yield f'<p class="cut">Incomplete: {escape(report.cut)}.</p>'
        made = f"<time>{escape(report.created)}</time>"
        yield f'<p class="legend">{escape(legend(report))} {made}</p>'
    yield from _plots(subjects)
    for subject in (subject for report in measured for subject in report.subjects):
        yield from _subject(subject)
    if len(subjects) > 1:
        yield from _comparison(reports)
    for report in measured:
        yield from folded("Environment and settings", facts(report))


def _plots(subjects: Sequence[Subject]) -> Iterator[str]:
    drawn = [subject for subject in subjects if any(r.suite == DEPTH for r in subject.rows)]
    runs = [subject for subject in subjects if not subject.source]
    yield from figures([_curve_figure(id, drawn) for id in CURVES])
    if len(drawn) > 1:
        yield keys([subject.label for subject in drawn])
    yield from figures([_dot_figure(id, runs) for id in DISTRIBUTIONS])


def _curve_figure(id: str, subjects: Sequence[Subject]) -> str:
    metric = METRICS[id]
    data = []
    for subject in subjects:
        samples = [(tokens(row.name), row.metrics[id]) for row in subject.rows
                   if row.suite == DEPTH and id in row.metrics]  # fmt: skip
        points = [
            (float(x), s.median if s.low is None else s.low, s.median,
             s.median if s.high is None else s.high) for x, s in sorted(samples, key=lambda p: p[0])
        ]  # fmt: skip
        data.append(Curve(subject.label, points))
    title = f"{metric.heading} speed over context"
    if not any(curve.points for curve in data):
        return ""
    return html_figure(title.capitalize(), draw_curves(title, metric.unit, data))


def _dot_figure(id: str, subjects: Sequence[Subject]) -> str:
    metric = METRICS[id]
    data = [
        Dots(row.label if len(subjects) == 1 else f"{row.label}, {subject.name}",
             [value * metric.scale for value in sample.values], sample.median * metric.scale)
        for subject in subjects for row in subject.rows
        if row.suite == WORKLOADS
        for sample in (row.metrics.get(id),)
        if sample and sample.values
    ]  # fmt: skip
    title = {"latency": "Latency of every request", "first_token": "Time to first token"}[id]
    return html_figure(title, draw_dots(title, metric.unit, data)) if data else ""


def _comparison(reports: Sequence[Report]) -> Iterator[str]:
    yield f'<section><h2>Side by side</h2><p class="legend">{escape(LEGEND)}</p>'
    for table in comparison_tables(reports):
        yield from html_table(table)
    differing = differences(reports)
    if differing:
        yield from html_table(
            Table("What else differs", ("", "first", "second"), differing, texts=3)
        )
    yield "</section>"


def _subject(subject: Subject) -> Iterator[str]:
    yield f"<section><h2>{escape(subject.label)}</h2>"
    for table in tables(subject):
        yield from html_table(table)
    yield f"<ul>{''.join(f'<li>{escape(remark)}</li>' for remark in remarks(subject))}</ul>"
    yield from folded("File, device and probes", subject_facts(subject))
    yield "</section>"
