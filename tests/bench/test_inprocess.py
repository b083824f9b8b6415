"""A file in this process: the real runtime and the example model."""

from __future__ import annotations

import pytest

from lfm2gguf import Progress
from lfm2gguf.bench import Report, benchmark
from lfm2gguf.bench.cells import Cell, plan
from lfm2gguf.bench.sources.inprocess import InProcess
from lfm2gguf.errors import DeviceError, Lfm2ggufError
from tests.making.models import tiny_gguf

QUICK = {"device": "cpu", "threads": 1, "runs": 2, "warm_ups": 1}


@pytest.fixture(scope="module")
def report() -> Report:
    return benchmark(
        [tiny_gguf()], contexts=[64, 128, 4096], workloads=["chat", "rag"], concurrency=[1, 2],
        **QUICK,
    )  # fmt: skip


@pytest.mark.slow
def test_the_rows_are_the_cells(report: Report) -> None:
    (subject,) = report.subjects
    assert [row.label for row in subject.rows] == ["64", "128", "chat", "chat x2", "rag", "rag x2"]
    assert report.cut is None
    assert subject.name == tiny_gguf().name
    assert subject.device is not None
    assert (subject.device["backend"], subject.device["threads"]) == ("CPU", 1)


@pytest.mark.slow
def test_contexts_beyond_the_model_are_left_out_and_said(report: Report) -> None:
    (subject,) = report.subjects
    assert subject.left_out == {"depth 4k": "the model was made for contexts of up to 1024 tokens"}


@pytest.mark.slow
def test_depths_count_what_was_asked_for(report: Report) -> None:
    first, second = report.subjects[0].rows[:2]
    assert first.metrics["prompt_tokens"].values == (64, 64)
    assert second.metrics["prompt_tokens"].values == (128, 128)
    assert second.metrics["output_tokens"].values == (32, 32)
    for id in ("decode", "prefill"):
        sample = second.metrics[id]
        assert sample.low is not None
        assert sample.high is not None
        assert 0 < sample.low <= sample.median <= sample.high


@pytest.mark.slow
def test_answers_have_the_wanted_length_and_nothing_comes_from_a_cache(report: Report) -> None:
    rows = report.subjects[0].rows[2:]
    assert [set(row.metrics["output_tokens"].values) for row in rows] == [
        {100},
        {100},
        {110},
        {110},
    ]
    assert [len(row.metrics["latency"].values) for row in rows] == [2, 4, 2, 4]
    assert all(row.cached_tokens == 0 and row.runs == 2 for row in rows)
    assert rows[2].metrics["prompt_tokens"].median > 752  # another tokenizer: the real length


@pytest.mark.slow
def test_the_columns_fit_each_other(report: Report) -> None:
    for row in report.subjects[0].rows[2:]:
        m = {id: sample.values for id, sample in row.metrics.items()}
        for i, latency in enumerate(m["latency"]):
            steps = m["output_tokens"][i] - 1
            assert latency == pytest.approx(m["first_token"][i] + steps * m["per_token"][i])
            assert m["decode"][i] == pytest.approx(1 / m["per_token"][i])
            assert m["prefill"][i] == pytest.approx(m["prompt_tokens"][i] / m["first_token"][i])
            assert m["end_to_end"][i] == pytest.approx(m["output_tokens"][i] / latency)
        slowest = max(m["latency"])
        assert min(m["throughput"]) <= row.concurrency * max(m["output_tokens"]) / slowest * 1.01


@pytest.mark.slow
def test_the_roofline_is_that_of_the_probes(report: Report) -> None:
    (subject,) = report.subjects
    assert subject.probes is not None
    assert subject.file is not None
    assert subject.probes["bandwidth"] == max(subject.probes["copy"], subject.probes["read"])
    assert subject.probes["matrix"] > 1e9
    most = subject.probes["bandwidth"] / subject.file["bytes_read_per_token"]
    depths = subject.rows[:2]
    assert most > depths[0].roofline > depths[1].roofline  # the cache is read too
    assert all(
        row.share == pytest.approx(row.metrics["decode"].median / row.roofline) for row in depths
    )
    assert all(row.roofline is None for row in subject.rows if row.concurrency == 2)


@pytest.mark.slow
def test_a_prompt_cache_works_where_it_is_wanted() -> None:
    report = benchmark(
        [tiny_gguf()], suite="workloads", workloads=["agent"], concurrency=[1],
        prompt_cache=True, probes=False, **QUICK,
    )  # fmt: skip
    (row,) = report.subjects[0].rows
    assert row.cached_tokens is not None
    assert row.cached_tokens > 0.5 * row.metrics["prompt_tokens"].median
    assert str(report.settings["prompt_caches"]).startswith("used")
    assert report.subjects[0].probes is None


def test_progress_ends_where_it_should() -> None:
    seen: list[Progress] = []
    benchmark(
        [tiny_gguf()], suite="depth", contexts=[32, 64], probes=False, progress=seen.append, **QUICK
    )
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert (seen[0].done, seen[0].left) == (0, None)
    assert (seen[-1].done, seen[-1].total, seen[-1].left) == (6, 6, 0)
    assert all(p.left is None or p.left >= 0 for p in seen)


@pytest.mark.parametrize("after", [1, 4, 6])
def test_an_interrupt_keeps_what_was_measured(after: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == after:
            raise KeyboardInterrupt

    report = benchmark(
        [tiny_gguf(), tiny_gguf()], suite="depth", contexts=[32, 64], probes=False,
        progress=interrupt, **QUICK,
    )  # fmt: skip
    (subject,) = report.subjects
    rows = {1: {}, 4: {"32": 2}, 6: {"32": 2, "64": 2}}[after]
    assert {row.name: row.runs for row in subject.rows} == rows
    assert report.cut is not None
    assert f"not begun: {tiny_gguf().name}" in report.cut
    assert ("not measured: depth 32, depth 64" in report.cut) == (after == 1)


def test_an_interrupt_within_a_row_keeps_its_runs() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    report = benchmark(
        [tiny_gguf()], suite="depth", contexts=[32, 64], probes=False, progress=interrupt, **QUICK
    )
    assert [row.runs for row in report.subjects[0].rows] == [1]
    assert report.cut == "interrupted; depth 32 has 1 of 2 runs; not measured: depth 64"


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ([], {}, "give a GGUF file"),
        (["none.gguf"], {}, "no such file"),
        ([__file__], {}, "not a GGUF"),
        ([], {"runs": 0}, "give at least 1 and 0"),
        ([], {"nonsense": 1}, "nonsense"),
        ([], {"suite": "x"}, "suite: 'x' is unknown"),
    ],
)
def test_refusals(models: list[str], settings: dict[str, int], message: str) -> None:
    with pytest.raises(Lfm2ggufError, match=message):
        benchmark(models, **settings)


def test_a_missing_device_is_said_before_anything_is_measured() -> None:
    with pytest.raises(DeviceError, match="rocm"):
        benchmark([tiny_gguf()], device="rocm:9")


def test_a_context_that_does_not_fit_into_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lfm2gguf.bench.sources.inprocess.available_memory", lambda: 1000)
    source = InProcess(tiny_gguf(), cells=plan("depth", [64]), device="cpu")
    with pytest.raises(Lfm2ggufError, match="memory are available"):
        source.prepare(Cell("depth", "64", 64, 32))
    source.close()
