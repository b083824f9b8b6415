"""``lfm2gguf publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import TYPE, DryRun, Jobs, Lora, Revision, Saying, Source

if TYPE_CHECKING:
    from lfm2gguf.publication import Publication, PublicationPlan
    from lfm2gguf_cli.console import Display

CHECK_FAILED = 1


@grouped
def publish(
    source: Source,
    *,
    to: Annotated[
        str, typer.Option(metavar="ORG/NAME-GGUF", help="The repository; it is made if need be.")
    ],
    type: Annotated[
        list[str] | None,
        typer.Option(
            *TYPE,
            metavar="TYPE[,TYPE...]",
            help="File types; may be given several times.",
            show_default="Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0 and BF16",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="The folder that is filled.",
            show_default="NAME-GGUF here",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Round weights for what each layer sees: see calibrate."),
    ] = False,
    imatrix: Annotated[
        bool, typer.Option(help="Compute an importance matrix, use it, and publish it.")
    ] = True,
    calibration_text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 text for the matrix or the calibration; may be given several times.",
            show_default="a bundled mixture",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 text, or wikitext-2, that the files are judged on: see verify.",
            show_default="python-docs",
        ),
    ] = None,
    chunks: Annotated[int, typer.Option(min=0, help="Chunks of each such text; 0: all.")] = 16,
    lora: Lora = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--lora-file",
            metavar="ADAPTER",
            help="A LoRA adapter to publish as a file of its own: a folder, or a Hub id.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="The checkpoint's repository, if it is a folder."),
    ] = None,
    revision: Revision = None,
    split_max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Write several files of at most this size (500M, 4G)."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one.")
    ] = False,
    upload: Annotated[
        bool, typer.Option(help="Upload; or fill the folder, for you to look at first.")
    ] = True,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Make everything again, over what is there.")
    ] = False,
    saying: Saying,
) -> None:
    """Publish a checkpoint as GGUF files: made, judged, described, and uploaded in one commit.

    Example: lfm2gguf publish LiquidAI/LFM2-1.2B --to me/LFM2-1.2B-GGUF --text wikitext-2

    The folder holds the ladder of types, projector and importance matrix, verify's report, the
    settings that Ollama reads, and a card with what each file loses. Unless every file passes,
    nothing is uploaded, and the exit code is 1. A run that was stopped goes on.
    The token is that of: hf auth login
    """
    from lfm2gguf.publication import LADDER, Settings, plan_publication
    from lfm2gguf.publication import publish as run
    from lfm2gguf.verification import Material
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.verdicts import show_verdicts

    if private and not upload:
        raise OptionError("--private: is of what is uploaded; leave it or --no-upload out")
    display = saying.display()
    settings = Settings(
        calibrate, imatrix, lora, adapter, revision, base_model, split_max_size,
        Material(text or (), chunks=chunks or None), tuple(calibration_text or ()),
    )  # fmt: skip
    planned = plan_publication(source, to, type or LADDER, folder=output, settings=settings)
    if dry_run:
        _show_plan(display, planned)
        return
    for note in planned.notes:
        display.note(note)
    with progress_of(display) as progress:
        made = run(
            planned, private=private or None, send=upload, jobs=jobs, overwrite=force,
            progress=progress,
        )  # fmt: skip
    if made.results and not display.json:
        show_verdicts(display, made.results)
    _show(display, made)
    if not made.passed:
        raise typer.Exit(CHECK_FAILED)


def _show_plan(display: Display, planned: PublicationPlan) -> None:
    from lfm2gguf.rendering import file_size

    if display.gives(planned.to_json):
        return
    for note in planned.notes:
        display.note(note)
    rows = [(name, type, file_size(nbytes)) for name, type, nbytes in planned.rows]
    display.table(("file", "type", "size"), rows)
    total = sum(nbytes for _, _, nbytes in planned.rows)
    display.line(f"{planned.repository}: {len(rows)} GGUF files, {file_size(total)}")


def _show(display: Display, made: Publication) -> None:
    for note in made.notes:
        display.note(note)
    display.gives(made.to_json)
    for failure in made.failures:
        display.complain(f"failed: {failure}")
    if display.json or display.quiet:
        return
    if not made.passed:
        display.line(f"nothing was uploaded; the files are in {made.folder}")
    elif made.url:
        display.line(made.url)
    else:
        display.line(f"{made.folder}: {len(made.files)} files; run it again to upload them")
