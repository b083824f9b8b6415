"""Reports side by side: ratios, and whether a difference is more than the spread of the runs.

The first subject is what the others are compared with. Two figures differ beyond their spread where
the ranges of their runs do not overlap: with five runs on each side and nothing but chance
between them, that happens in 2 of 252 cases (the rank-sum test's extreme). A published figure
comes without its runs, so that its spread is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfm2gguf.bench.cells import DEPTH, SUITES
from lfm2gguf.bench.metrics import METRICS, Sample
from lfm2gguf.bench.report.data import REPORT_VERSION, Report, Row, Subject
from lfm2gguf.bench.report.tables import UNKNOWN, figure, heading
from lfm2gguf.errors import OptionError
from lfm2gguf.rendering import Table

COMPARED = {
    "depth": ("decode", "prefill"),
    "workloads": ("decode", "end_to_end", "prefill", "first_token", "latency", "throughput"),
}
IGNORED = ("load_average", "load_average_after", "contexts", "workloads")
LEGEND = (
    "× is the ratio to the first row. ≈ marks figures whose runs overlap: no difference is shown. "
    "? marks figures without a known spread, as published ones are."
)


@dataclass(frozen=True)
class Figure:
    """One subject's figure beside the first subject's of the same cell and metric."""

    subject: str
    cell: str
    metric: str
    sample: Sample
    ratio: float | None
    exceeds_spread: bool | None

    def __str__(self) -> str:
        """Return the figure with its ratio and mark."""
        text = figure(self.metric, self.sample, spread=False)
        if self.ratio is None:
            return text
        mark = {True: "", False: " ≈", None: " ?"}[self.exceeds_spread]
        return f"{text} ×{self.ratio:.2f}{mark}"


def subjects(reports: Sequence[Report]) -> list[Subject]:
    """Return the subjects of all reports.

    Raises:
        OptionError: there are fewer than two.

    """
    found = [subject for report in reports for subject in report.subjects]
    if len(found) < 2:
        raise OptionError(
            "a comparison needs two reports; give lfm2gguf bench --compare A.json B.json"
        )
    return found


def compare(reports: Sequence[Report]) -> list[Figure]:
    """Return every figure that is shown side by side."""
    found = subjects(reports)
    base = {row.key: row for row in found[0].rows}
    return [
        _figure(subject, row, base.get(row.key), metric, is_base=subject is found[0])
        for subject in found
        for row in subject.rows
        for metric in COMPARED.get(row.suite, ())
        if metric in row.metrics
    ]


def _figure(subject: Subject, row: Row, base: Row | None, metric: str, *, is_base: bool) -> Figure:
    mine = row.metrics[metric]
    its = base.metrics.get(metric) if base and not is_base else None
    ratio = mine.median / its.median if its and its.median else None
    beyond = _beyond(mine, its) if its else None
    return Figure(subject.label, f"{row.suite} {row.label}", metric, mine, ratio, beyond)


def _beyond(one: Sample, other: Sample) -> bool | None:
    """Return whether two ranges lie apart; None where a range is unknown."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    if len(one.values) < 2 or len(other.values) < 2:
        return None
    return one.low > other.high or other.low > one.high


def comparison_tables(reports: Sequence[Report]) -> list[Table]:
    """Return one table for each metric of each suite: a row for each subject."""
    figures = compare(reports)
    return [
        table
        for suite in SUITES["all"]
        for metric in COMPARED[suite]
        for table in (_table(suite, metric, figures),)
        if len(table.rows) > 1
    ]


def _table(suite: str, metric: str, figures: Sequence[Figure]) -> Table:
    mine = [f for f in figures if f.metric == metric and f.cell.startswith(f"{suite} ")]
    cells = list(dict.fromkeys(f.cell for f in mine))
    by_subject: dict[str, dict[str, Figure]] = {}
    for f in mine:
        by_subject.setdefault(f.subject, {})[f.cell] = f
    rows = [
        (label, *(str(row[cell]) if cell in row else UNKNOWN for cell in cells))
        for label, row in by_subject.items()
    ]
    over = "over depth" if suite == DEPTH else "of workloads"
    heads = ("", *(cell.removeprefix(f"{suite} ") for cell in cells))
    return Table(f"{heading(metric)} {over}", heads, rows)


def differences(reports: Sequence[Report]) -> list[tuple[str, str, str]]:
    """Return what differs in the first two reports: name, first, second.

    Only what both say; published reports have neither environment nor settings.
    """
    if len(reports) < 2:
        return []
    one, other = (dict(_leaves(r.environment)) | dict(_leaves(r.settings)) for r in reports[:2])
    names = [name for name in one if name in other and one[name] != other[name]]
    return [(name, str(one[name]), str(other[name])) for name in names]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in IGNORED:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}".replace("_", " "), value


def to_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the comparison as plain data, the reports that were measured included."""
    return {
        "report": "lfm2gguf bench --compare",
        "version": REPORT_VERSION,
        "subjects": [subject.label for subject in subjects(reports)],
        "figures": [
            {
                "subject": f.subject,
                "cell": f.cell,
                "metric": f.metric,
                "unit": METRICS[f.metric].si_unit,
                "median": f.sample.median,
                "ratio": None if f.ratio is None else round(f.ratio, 4),
                "exceeds_spread": f.exceeds_spread,
            }
            for f in compare(reports)
        ],
        "differences": [dict(zip(("what", "first", "second"), d, strict=True))
                        for d in differences(reports)],
        "reports": [report.to_json() for report in reports if report.created],
    }  # fmt: skip
