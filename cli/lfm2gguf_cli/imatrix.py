"""``lfm2gguf imatrix``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import Force, Lora, MaterialOptions, Revision, Saying

if TYPE_CHECKING:
    from lfm2gguf.imatrix import ImportanceMatrix
    from lfm2gguf_cli.console import Display


@grouped
def imatrix(
    source: Annotated[
        str | None,
        typer.Argument(help="A checkpoint's folder, a Hub id, or an F32, F16 or BF16 GGUF."),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write: .gguf, or .dat for old programs.",
        ),
    ] = None,
    material: MaterialOptions,
    in_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A matrix to add; may be given several times."),
    ] = None,
    show_statistics: Annotated[
        bool, typer.Option("--show-statistics", help="Show each tensor's importances.")
    ] = False,
    lora: Lora = None,
    revision: Revision = None,
    force: Force = False,
    saying: Saying,
) -> None:
    """Compute what weighs the errors of a quantization, as llama-imatrix does; merge, show.

    Example: lfm2gguf imatrix LiquidAI/LFM2-1.2B -o LFM2-1.2B.imatrix.gguf

    The matrix is for convert --imatrix, quantize --imatrix and llama-quantize --imatrix.
    """
    from lfm2gguf.imatrix import DEFAULT_CHUNK, merge, read_imatrix, write_imatrix
    from lfm2gguf.storage import check_target
    from lfm2gguf_cli.progress import progress_of

    if source is None and not in_file:
        raise OptionError("nothing to do: name a checkpoint, or matrices with --in-file")
    if source is None:
        read = replace(material, ctx=None).given  # --ctx says how long a legacy file's chunks are
        read += [f"--lora {lora}"] * bool(lora) + [f"--revision {revision}"] * bool(revision)
        if read:
            raise OptionError(f"{read[0]}: is for a checkpoint, and none is named; leave it out")
    if output is None and not show_statistics:
        raise OptionError("where to? Name the file with -o, or ask for --show-statistics")
    display = saying.display()
    if output is not None:
        check_target(output, overwrite=force)
    matrices = [read_imatrix(path) for path in in_file or ()]
    if source is not None:
        from lfm2gguf.calibration import collect_imatrix

        with progress_of(display) as progress:
            matrices.append(
                collect_imatrix(
                    source, revision=revision, lora=lora, progress=progress,
                    **material.arguments(),
                )
            )  # fmt: skip
    if source is None and material.ctx is not None and all(m.chunk_size for m in matrices):
        raise OptionError(
            "--ctx: says how long a legacy file's chunks were, and each of these says it; leave it "
            "out"
        )
    whole = matrices[0]
    if len(matrices) > 1 or material.ctx is not None:  # which a legacy file is told in tokens by
        whole = merge(matrices, material.ctx or DEFAULT_CHUNK)
    for name, experts in whole.unseen.items():
        display.note(f"{name}: no token reached {len(experts)} of its experts; use more text")
    if output is not None:
        write_imatrix(whole, output, overwrite=force)
    _show(display, whole, output, statistics_too=show_statistics)
    if output is not None:
        display.next("lfm2gguf", "convert", source or "SOURCE", "--imatrix", output)


def _show(
    display: Display, matrix: ImportanceMatrix, output: Path | None, *, statistics_too: bool
) -> None:
    from lfm2gguf.imatrix import statistics

    rows = statistics(matrix) if statistics_too else []
    about: dict[str, Any] = {
        "path": str(output) if output else None,
        "entries": len(matrix.entries),
        "chunks": matrix.chunk_count,
        "chunk_size": matrix.chunk_size,
        "datasets": list(matrix.datasets),
        "statistics": [vars(row) for row in rows],
    }
    if display.gives(lambda: about):
        return
    if rows:
        heads = ("layer", "tensor", "sum", "min", "max", "mean", "sd", "active", "n", "entropy",
                 "normed", "ZD", "cosine")  # fmt: skip
        display.table(heads, [
            ("-" if r.block is None else str(r.block), r.kind, f"{r.total:.2f}",
             f"{r.minimum:.4f}", f"{r.maximum:.4f}", f"{r.mean:.2f}", f"{r.deviation:.2f}",
             f"{r.active:.2%}", str(r.elements), f"{r.entropy:.4f}", f"{r.relative_entropy:.2%}",
             f"{r.outliers:.2%}", f"{r.similarity:.4f}")
            for r in rows
        ])  # fmt: skip
    if output is not None:
        display.line(f"{output}: {len(matrix.entries)} entries over {matrix.chunk_count} chunks")
