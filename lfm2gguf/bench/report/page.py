"""A report as one HTML page: tables and plots, nothing fetched from anywhere, no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files

from lfm2gguf.bench.cells import DEPTH, WORKLOADS, tokens
from lfm2gguf.bench.metrics import METRICS
from lfm2gguf.bench.report.comparison import LEGEND, comparison_tables, differences
from lfm2gguf.bench.report.data import Report, Subject
from lfm2gguf.bench.report.tables import facts, legend, remarks, subject_facts, tables
from lfm2gguf.rendering import PAGE_COLORS, Curve, Dots, Table, draw_curves, draw_dots

CURVES = ("decode", "prefill")
DISTRIBUTIONS = ("latency", "first_token")


def page(reports: Sequence[Report]) -> str:
    """Return the page of one report, or of several side by side."""
    return "\n".join(_page(reports)) + "\n"


def _page(reports: Sequence[Report]) -> Iterator[str]:
    subjects = [subject for report in reports for subject in report.subjects]
    measured = [report for report in reports if report.created]
    title = subjects[0].label if subjects else "nothing was measured"
    style = (files("lfm2gguf.bench") / "page.css").read_text("utf-8")
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>lfm2gguf bench: {escape(title)}</title><style>{style}</style></head><body>"
    yield f"<header><h1>lfm2gguf bench</h1><p>{escape(title)}</p></header><main>"
    for report in measured:
        if report.cut:
            yield f'<p class="cut">Incomplete: {escape(report.cut)}.</p>'
        yield f'<p class="legend">{escape(legend(report))} {escape(report.created)}</p>'
    yield from _plots(subjects)
    for subject in (subject for report in measured for subject in report.subjects):
        yield from _subject(subject)
    if len(subjects) > 1:
        yield from _comparison(reports)
    for report in measured:
        yield from _folded("Environment and settings", facts(report))
    yield "</main></body></html>"


def _plots(subjects: Sequence[Subject]) -> Iterator[str]:
    drawn = [subject for subject in subjects if any(r.suite == DEPTH for r in subject.rows)]
    runs = [subject for subject in subjects if not subject.source]
    yield from _figures([_curve_figure(id, drawn) for id in CURVES])
    if len(drawn) > 1:
        items = (
            f'<li><i class="c{i % PAGE_COLORS}"></i>{escape(s.label)}</li>'
            for i, s in enumerate(drawn)
        )
        yield f'<ul class="keys">{"".join(items)}</ul>'
    yield from _figures([_dot_figure(id, runs) for id in DISTRIBUTIONS])


def _figures(drawn: Sequence[str]) -> Iterator[str]:
    if any(drawn):
        yield '<section class="plots">'
        yield from filter(None, drawn)
        yield "</section>"


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
    return _figure(title, draw_curves(title, metric.unit, data))


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
    return _figure(title, draw_dots(title, metric.unit, data)) if data else ""


def _figure(title: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(title.capitalize())}</figcaption>{svg}</figure>"


def _comparison(reports: Sequence[Report]) -> Iterator[str]:
    yield f'<section><h2>Side by side</h2><p class="legend">{escape(LEGEND)}</p>'
    for table in comparison_tables(reports):
        yield from _table(table)
    differing = differences(reports)
    if differing:
        yield from _table(Table("What else differs", ("", "first", "second"), differing, texts=3))
    yield "</section>"


def _subject(subject: Subject) -> Iterator[str]:
    yield f"<section><h2>{escape(subject.label)}</h2>"
    for table in tables(subject):
        yield from _table(table)
    yield f"<ul>{''.join(f'<li>{escape(remark)}</li>' for remark in remarks(subject))}</ul>"
    yield from _folded("File, device and probes", subject_facts(subject))
    yield "</section>"


def _table(table: Table) -> Iterator[str]:
    yield f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead>'
    yield _row("th", table.heads, table.texts)
    yield "</thead><tbody>"
    yield from (_row("td", row, table.texts) for row in table.rows)
    yield "</tbody></table></div>"


def _row(tag: str, cells: Sequence[str], texts: int) -> str:
    kinds = ("text" if i < texts else "number" for i in range(len(cells)))
    body = (f'<{tag} class="{k}">{escape(c)}</{tag}>' for k, c in zip(kinds, cells, strict=True))
    return f"<tr>{''.join(body)}</tr>"


def _folded(title: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"<details><summary>{escape(title)}</summary><dl>"
    yield from (f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs)
    yield "</dl></details>"
