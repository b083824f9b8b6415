"""``lfm2gguf verify``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import HubType, Lora, Saying, text_cuts
from lfm2gguf_cli.running import Threads, Trial, where


def share(text: str) -> float:
    """Read ``2%`` or ``0.02``."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a share such as 2% or 0.02") from error


@grouped
def verify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.gguf|FOLDER|ID", help="The file, a folder of files, or a Hub id."
        ),
    ],
    *,
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            "-r",
            metavar="SOURCE",
            help="Checkpoint folder, Hub id, or an F32, F16 or BF16 GGUF.",
        ),
    ],
    type: HubType = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Branch, tag or commit of the reference's repository."),
    ] = None,
    lora: Lora = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 text, or wikitext-2; may be given several times. The default, a text from "
            "Python's documentation, is a smoke test.",
            show_default="python-docs",
        ),
    ] = None,
    chat: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Conversations as JSON (messages, ShareGPT, Alpaca, prompt and completion); only "
            "the assistant's tokens are scored.",
        ),
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(min=0, help="Chunks of each text; 0: all.", show_default="16")
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(min=16, help="Tokens of a chunk; half are scored.", show_default="512"),
    ] = None,
    max_ppl_increase: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="2%",
            help="Limit of the increase of perplexity.",
            show_default="by type",
        ),
    ] = None,
    max_kld: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="0.05",
            help="Limit of the mean KL divergence, in nats.",
            show_default="by type",
        ),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="90%",
            help="Least share of equal top tokens.",
            show_default="by type",
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0.98",
            help="Of a retrieval model: least mean cosine of its vectors.",
            show_default="by type",
        ),
    ] = None,
    min_rank: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0.91",
            help="Likewise: least rank correlation of documents.",
            show_default="by type",
        ),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="76%",
            help="Likewise: least share of equal documents among the ten best.",
            show_default="by type",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fail on drift from this earlier JSON report."),
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report to compare later runs with.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg|png", help="Draw how far the file is from its reference."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page: the ladder as a picture, all figures."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="auto|llama.cpp|numpy", help="What runs it; numpy computes it dequantized."
        ),
    ] = "auto",
    device: Annotated[str | None, where("cpu")] = None,
    threads: Threads = None,
    trial: Trial = True,
    three_way: Annotated[
        bool, typer.Option("--three-way", help="Tell loss by quantization from runtime faults.")
    ] = False,
    cache: Annotated[
        bool, typer.Option(help="Keep the reference's states for the next run.")
    ] = True,
    saying: Saying,
) -> None:
    """Prove that a GGUF file still says what its checkpoint says.

    Of a text model the next tokens are compared, of a retrieval model the vectors and rankings.
    Exit code 0: passed, 1: failed, 2: could not be judged.

    Example: lfm2gguf verify LFM2-1.2B-Q4_K_M.gguf --reference LiquidAI/LFM2-1.2B
    """
    from lfm2gguf.checkpoint import gguf_path
    from lfm2gguf.verification import Engine, Limits, Material, open_reference
    from lfm2gguf.verification import verify as verify_files
    from lfm2gguf.verification.report.files import candidates, check_targets, write_reports
    from lfm2gguf_cli.progress import progress_of
    from lfm2gguf_cli.verdicts import conclude, report_json, show_verdicts

    targets = {
        "baseline": write_baseline, "junit": junit, "markdown": markdown, "html": html,
        "plot": plot,
    }  # fmt: skip
    check_targets(targets)
    cuts = text_cuts(chunks, ctx)
    if cuts and chat is not None and not text:
        raise OptionError(
            "--chunks and --ctx: say how texts are cut, and conversations are scored whole; leave "
            "them out"
        )
    limits = Limits(max_ppl_increase, max_kld, min_top1, min_cosine, min_rank, min_overlap)
    printed = Path("-") in targets.values()
    display = replace(saying, quiet=saying.quiet or printed).display()
    files = candidates(gguf_path(model, type))
    with progress_of(display) as progress:
        results = verify_files(
            files,
            open_reference(reference, revision, lora),
            material=Material(text or (), chat, cache=cache, **cuts),
            limits=limits,
            engine=Engine(engine, device, threads, three_way),
            baseline=baseline,
            progress=progress,
        )
    typer.echo(write_reports(results, targets), nl=False)
    display.gives(lambda: report_json(results))
    show_verdicts(display, results)
    conclude(display, results, files)
