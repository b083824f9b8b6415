"""``lfm2gguf bench``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import Saying
from lfm2gguf_cli.running import PlaceOptions

if TYPE_CHECKING:
    from lfm2gguf.bench import Report
    from lfm2gguf.rendering import Table
    from lfm2gguf_cli.console import Display

INTERRUPTED = 130


@grouped
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL.gguf ...]",
            help="Files to measure in this process; with --endpoint, the one that runs there; "
            "with --compare, reports too.",
            show_default=False,
        ),
    ] = None,
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measure a server that speaks OpenAI's protocol."),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare reports (A.json B.json) or what is measured now; 'published' means "
            "the published tables.",
        ),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(metavar="all|depth|workloads", help="What is measured.", show_default="all"),
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Context lengths of the depth suite.",
            show_default="1k,2k,4k,8k,16k,32k",
        ),
    ] = None,
    workloads: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Which workloads.", show_default="all"),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Requests at once, for every workload.",
            show_default="as published",
        ),
    ] = None,
    warmups: Annotated[
        int | None,
        typer.Option(min=0, help="Runs before those that count, for each row.", show_default="2"),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Runs of each row.", show_default="5")
    ] = None,
    prompt_cache: Annotated[
        bool, typer.Option("--prompt-cache", help="Let prompt caches work; else they are defeated.")
    ] = False,
    lookup: Annotated[
        int | None,
        typer.Option(
            help="In process: most tokens guessed at once from what the text repeats; 0 is off.",
            min=0,
            max=64,
            show_default="8",
        ),
    ] = None,
    place: PlaceOptions,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The endpoint's name for it.", show_default="its first"),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="For the endpoint.", show_default="OPENAI_API_KEY of the environment"),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(help="The server's process.", show_default="found by its port if local"),
    ] = None,
    probes: Annotated[
        bool, typer.Option(help="Measure memory bandwidth and matrix rate beforehand.")
    ] = True,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one line for each figure.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with tables and plots.")
    ] = None,
    saying: Saying,
) -> None:
    """Measure speed over depth and workloads, as LFM2's published tables have them.

    Ctrl-C ends it, and keeps what was measured; the exit code is then 130.

    Example: lfm2gguf bench LFM2-1.2B-Q4_K_M.gguf --html speed.html
    """
    from lfm2gguf.bench import benchmark, read_reports, tokens
    from lfm2gguf.bench.report.comparison import subjects
    from lfm2gguf.bench.report.files import as_data, write
    from lfm2gguf.rendering import check_targets
    from lfm2gguf_cli.progress import progress_of

    targets = {"csv": csv, "markdown": markdown, "html": html}
    check_targets(targets)
    names = models or []
    measured = [name for name in names if not (compare and _is_report(name))]
    reports = read_reports([name for name in names if name not in measured])
    quiet = saying.quiet or Path("-") in targets.values()
    display = replace(saying, quiet=quiet).display()
    cut = None
    given = {
        "model": model, "api_key": api_key, "pid": pid, "suite": suite, "runs": runs,
        "contexts": None if contexts is None else _numbers(contexts, tokens),
        "workloads": None if workloads is None else workloads.split(","), "warm_ups": warmups,
        "concurrency": None if concurrency is None else _numbers(concurrency, _count),
        "prompt_cache": prompt_cache or None, "lookup": lookup, **place.arguments(),
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    if measured or endpoint or not reports:
        if endpoint and api_key is None:
            settings["api_key"] = os.environ.get("OPENAI_API_KEY")
        with progress_of(display) as progress:
            new = benchmark(
                measured, endpoint=endpoint, probes=probes, progress=progress, **settings
            )
        reports, cut = [new, *reports], new.cut
    elif settings:
        flag = next(iter(settings)).replace("warm_ups", "warmups").replace("_", "-")
        raise OptionError(
            f"--{flag}: is for measuring, and reports are only compared; leave it out"
        )
    if compare:
        subjects(reports)
    typer.echo(write(reports, targets), nl=False)
    if not display.gives(lambda: as_data(reports)):
        _show(display, reports)
    if cut:
        raise typer.Exit(INTERRUPTED)
    kept = saying.json_file or "REPORT.json"
    display.next("lfm2gguf", "bench", kept, "published", "--compare")


def _show(display: Display, reports: Sequence[Report]) -> None:
    """Show each report's tables, and several reports side by side."""
    from lfm2gguf.bench.report.comparison import LEGEND, comparison_tables
    from lfm2gguf.bench.report.tables import legend, remarks, tables

    for report in reports:
        for subject in report.subjects if report.created else ():
            display.line(f"{subject.label}, {subject.via}")
            for table in tables(subject):
                _show_table(display, table)
            for remark in remarks(subject):
                display.note(remark)
        if report.created:
            display.note(legend(report))
        if report.cut:
            display.note(report.cut)
    if sum(len(report.subjects) for report in reports) > 1:
        for table in comparison_tables(reports):
            _show_table(display, table)
        display.note(LEGEND)


def _show_table(display: Display, table: Table) -> None:
    display.line(f"\n{table.title}")
    display.table(table.heads, table.rows, plain_heads=True)


def _is_report(name: str) -> bool:
    return name == "published" or name.endswith(".json")


def _numbers(text: str, read: Callable[[str], int]) -> Sequence[int]:
    return [read(part) for part in text.split(",")]


def _count(text: str) -> int:
    if not text.strip().isdecimal():
        raise OptionError(f"{text!r} is not a number of requests")
    return int(text)
