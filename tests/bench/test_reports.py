"""Reports written and read, compared, and the published ones."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.bench import METRICS, Measurement, Report, Row, Sample, Subject, read_reports
from lfm2gguf.bench.metrics import summarise
from lfm2gguf.bench.report.comparison import compare, comparison_tables, differences, to_json
from lfm2gguf.bench.report.data import published
from lfm2gguf.bench.report.files import WRITERS
from lfm2gguf.bench.report.tables import as_csv, markdown, remarks, tables
from lfm2gguf.errors import OptionError

HOSTILE = "a|b<script>alert(1)</script>\n`x`"


def made(decode: tuple[float, ...] = (50, 52, 54), name: str = "A.gguf", **about: Any) -> Report:
    metrics = {"decode": Sample.of(decode), "latency": Sample.of([v / 100 for v in decode])}
    rows = (
        Row("depth", "1k", 1, {"decode": Sample.of(decode)}, runs=3, roofline=100.0, share=0.52),
        Row("workloads", "agent", 4, metrics, runs=3, memory_growth=2**20, counted="usage"),
    )
    subject = Subject(name, "in process", "machine", rows, {"depth 64k": "too long"}, (HOSTILE,))
    environment = {"processor": "P", "gpus": [{"name": "G", "power.limit": "450 W"}], **about}
    settings = {"runs": 3, "warm_ups": 1, "prompt_caches": "defeated"}
    return Report((subject,), settings, environment, "2026-01-02T03:04:05Z", "interrupted; x")


def saved(report: Report, path: Path) -> Path:
    path.write_text(report.dumps(), encoding="utf-8")
    return path


def test_the_definitions() -> None:
    m = Measurement(
        prompt_tokens=600,
        output_tokens=101,
        first=2,
        last=7,
        total=7.5,
        steps=100,
        guessed_right=60,
    )
    values = {id: metric.of(m) for id, metric in METRICS.items()}
    assert values == {
        "decode": 20, "end_to_end": 101 / 7.5, "prefill": 300, "first_token": 2,
        "per_token": 0.05, "per_step": 2.5, "prompt_tokens": 600, "output_tokens": 101,
        "latency": 7.5, "throughput": None,
    }  # fmt: skip


def test_what_cannot_be_known_is_left_out() -> None:
    m = Measurement(prompt_tokens=None, output_tokens=1, first=1, last=1, total=1, steps=0)
    assert summarise([m]).keys() == {"end_to_end", "first_token", "output_tokens", "latency"}


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9))
def test_a_sample_lies_within_its_spread(values: list[float]) -> None:
    sample = Sample.of(values)
    assert sample.low is not None
    assert sample.high is not None
    assert sample.low <= sample.median <= sample.high
    assert (sample.spread is None) == (len(values) == 1)
    assert sample.spread is None or sample.spread >= 0


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = made()
    (again,) = read_reports([saved(report, tmp_path / "a.json")])
    assert again == report
    assert again.dumps() == report.dumps()


def test_infinity_is_no_json() -> None:
    report = made(environment_figure=float("inf"))
    assert json.loads(report.dumps())["environment"]["environment_figure"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=99), "version 99"),
        (lambda d: d.update(report="lfm2gguf verify"), "not a report"),
        (lambda d: d.pop("settings"), "damaged"),
        (lambda d: d.update(subjects=3), "damaged"),
        (lambda d: d["subjects"][0].pop("rows"), "damaged"),
        (lambda d: d["subjects"][0].update(extra=1), "damaged"),
        (lambda d: d["subjects"][0]["rows"][0].update(metrics=[]), "damaged"),
        (lambda d: d["subjects"][0]["rows"][0]["metrics"]["decode"].update(median="x"), "damaged"),
        (lambda d: d["subjects"][0]["rows"][0]["metrics"]["decode"].update(values=None), "damaged"),
    ],
)
def test_damaged_reports_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    data = copy.deepcopy(made().to_json())
    change(data)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_reports([path])


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_report_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(OptionError, match="not a report"):
        read_reports([path])
    with pytest.raises(OptionError, match="cannot be read"):
        read_reports([tmp_path / "none.json"])


def test_the_published_tables_are_there_and_name_their_source() -> None:
    subjects = [subject for report in published() for subject in report.subjects]
    assert len(subjects) == 4 + 3
    assert all(subject.source for subject in subjects)
    figures = {
        (s.label, *row.key): row.metrics["decode"].median for s in subjects for row in s.rows
    }
    assert len(figures) == 4 * 6 + 5 + 2 + 2
    assert figures["LFM2-1.2B, Ryzen AI 7 350 (NPU)", "depth", "32k", 1] == 46
    key = "LFM2-8B-A1B Q4_K_M, RTX 3090, 450 W, CUDA", "workloads", "agent", 4
    assert figures[key] == 432.0
    rows = [row for s in subjects for row in s.rows if row.suite == "workloads"]
    # columns that follow from each other, as far as they were rounded
    assert all(
        row.metrics["per_token"].median * row.metrics["decode"].median == pytest.approx(1, rel=0.03)
        for row in rows
    )


def test_differences_are_judged_by_the_spread() -> None:
    slow, same, fast = made(), made((53, 54, 58), "B"), made((70, 71, 72), "C")
    figures = [f for f in compare([slow, same, fast]) if f.cell == "depth 1k"]
    assert [(f.subject[0], f.exceeds_spread) for f in figures] == [
        ("A", None), ("B", False), ("C", True),
    ]  # fmt: skip
    assert figures[2].ratio == pytest.approx(71 / 52)
    assert [str(f) for f in figures] == ["52.0", "54.0 ×1.04 ≈", "71.0 ×1.37"]
    once = [f for f in compare([slow, made((90,), "D")]) if f.cell == "depth 1k"]
    assert once[1].exceeds_spread is None  # one run has no spread


def test_published_figures_have_no_spread() -> None:
    figures = compare([made(), *published()])
    assert {f.exceeds_spread for f in figures} == {None}
    (table, *_) = comparison_tables([made(), *published()])
    assert table.rows[0] == ("A.gguf, machine", "52.0", *["-"] * 5)
    assert table.rows[1][:2] == ("LFM2-1.2B, Ryzen AI 7 350 (NPU)", "62.0 ×1.19 ?")


def test_one_report_is_no_comparison() -> None:
    with pytest.raises(OptionError, match="two reports"):
        compare([made()])


def test_what_else_differs_is_said() -> None:
    assert differences([made(), made(kernel="6")]) == []
    assert differences([made(kernel="5"), made(kernel="6")]) == [("kernel", "5", "6")]
    assert differences([made(), *published()]) == []


def test_the_comparison_as_json() -> None:
    value = to_json([made(), made((70, 71, 72), "C")])
    assert json.loads(json.dumps(value)) == value
    assert value["subjects"] == ["A.gguf, machine", "C, machine"]
    assert len(value["reports"]) == 2
    figure = value["figures"][-1]
    assert (figure["metric"], figure["unit"], figure["exceeds_spread"]) == ("latency", "s", True)


def test_tables_have_every_row_and_markdown_stays_a_table() -> None:
    report = made()
    depth, work, roof = tables(report.subjects[0])
    assert depth.rows == [("decode (tokens/s)", "52.0 ±3.8%"), ("prefill (tokens/s)", "-")]
    assert work.rows[0][:3] == ("agent", "4", "52.0 ±3.8%")
    assert work.rows[0][-1] == "0.001"
    assert roof.rows == [("depth 1k", "52.0", "100.0", "52 %")]
    text = markdown(report)
    assert "Incomplete: interrupted; x" in text
    assert "left out: depth 64k (too long)" in text
    assert "<script>" not in text
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_more_than_is_possible_is_said() -> None:
    (subject,) = made().subjects
    beyond = replace(subject, rows=tuple(replace(row, share=1.1) for row in subject.rows))
    assert not any("disturbed" in remark for remark in remarks(subject))
    assert any("disturbed" in remark for remark in remarks(beyond))


def test_csv_has_a_line_for_each_figure() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv([made(), *published()]))))
    assert len(lines) == 3 + 24 * 2 + 9 * 8
    assert lines[0]["median"] == "52"
    assert lines[0]["low"] == "50"
    assert lines[-1]["low"] == ""


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_takes_one_and_several(form: str) -> None:
    write = WRITERS[form]
    assert write([made()])
    assert "FastFlowLM" in write(published()) or form in ("markdown", "html")
    assert len(write([made(), *published()])) > len(write([made()]))


def test_an_empty_report_is_shown_too() -> None:
    nothing = Report((Subject("A", "in process", "m", ()),), made().settings, {}, "now", "cut")
    assert all(write([nothing]) for write in WRITERS.values())
