"""Options that several commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.ggml import FileType
from lfm2gguf.options import option_table

if TYPE_CHECKING:
    from lfm2gguf.imatrix import ImportanceMatrix
    from lfm2gguf.runner import Runner

*_FIRST, _LAST = FileType.__members__
_TYPES = (
    f"{', '.join(_FIRST)} or {_LAST}; "
    "may be given several times: all files come out of one reading."
)
Types = Annotated[list[str], typer.Option("--type", "-t", help=_TYPES)]
ConvertTypes = Annotated[
    list[str] | None,
    typer.Option("--type", "-t", help=_TYPES, show_default="Q4_K_M; F16 with --mmproj"),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="The file to write, or a folder for files of the default name.",
        show_default="NAME-TYPE.gguf here",
    ),
]  # fmt: skip
SplitMaxSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Write several files of at most this size (500M, 4G)."),
]
Pure = Annotated[bool, typer.Option("--pure", help="Every tensor in the type's own; no mixture.")]
LeaveOutput = Annotated[
    bool, typer.Option("--leave-output-tensor", help="Keep output.weight in the type it has.")
]
OutputType = Annotated[
    str | None,
    typer.Option(
        "--output-tensor-type",
        metavar="TYPE",
        help="For output.weight, and for an embedding that is the output too.",
    ),
]
EmbeddingType = Annotated[
    str | None,
    typer.Option("--token-embedding-type", metavar="TYPE", help="For token_embd.weight."),
]
TensorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type",
        metavar="REGEX=TYPE",
        help="For tensors whose names it is found in, such as ffn_down=Q6_K; several times.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Processes that work.", show_default="all cores"),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless it fails.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# What weighs the errors of a quantization: convert and quantize.
IncludeWeights = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Use the matrix for tensors whose names contain this."),
]
ExcludeWeights = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Do not use the matrix for tensors whose names do."),
]
# What a model is calibrated on: convert and imatrix.
Texts = Annotated[
    list[str] | None,
    typer.Option(
        help="UTF-8 text to calibrate on, or wikitext-2; may be given several times.",
        show_default="a bundled mixture of documentation, code and chat",
    ),
]
Chat = Annotated[
    Path | None,
    typer.Option(help="Conversations to calibrate on (JSON lines), in the model's own template."),
]
Chunks = Annotated[int, typer.Option(min=0, help="Chunks of each text; 0: all.")]
Ctx = Annotated[int, typer.Option(min=32, help="Tokens of a chunk.")]


def read_matrix(
    path: Path | None, include: list[str] | None, exclude: list[str] | None
) -> ImportanceMatrix | None:
    """Read an importance matrix, or the part of it that is asked for."""
    if path is None:
        return None
    from lfm2gguf.imatrix import read_imatrix

    return read_imatrix(path).select(include or (), exclude or ())


# Where a model comes from and runs: run, serve and bench.
ModelOrId = Annotated[
    str, typer.Argument(help="A GGUF file, or a Hub id such as LiquidAI/LFM2-1.2B-GGUF.")
]
HubType = Annotated[str, typer.Option("--type", "-t", help="Which file of a Hub repository.")]
Mmproj = Annotated[Path | None, typer.Option(help="The model's projector, for images and sound.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, vulkan, rocm or metal; cuda:1 for the second.")
]
GpuLayers = Annotated[
    int | None,
    typer.Option(help="Layers to offload; -1: all of them.", show_default="as many as fit"),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="physical cores")
]


def sampling(name: str, *flags: str, shown: str = "the model's own") -> Any:
    """Return the flag of an option of answers, with the option's range and description."""
    option = option_table()[name]
    low, high = option.range or (None, None)
    return typer.Option(*flags, min=low, max=high, help=option.doc, show_default=shown)


def open_runner(model: str, type: str, **settings: Any) -> Runner:
    """Open a file, or the one of this type in a Hub repository."""
    from lfm2gguf.runner import Runner

    if Path(model).exists() or model.count("/") != 1 or model.endswith(".gguf"):
        return Runner(model, **settings)
    if not sys.stderr.isatty():  # progress bars are for people
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return Runner.from_hub(model, type, **settings)
