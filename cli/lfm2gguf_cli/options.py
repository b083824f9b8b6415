"""The options of all commands that more than one has: each stands here, and nowhere else.

A group is a dataclass that commands take as one value (:mod:`lfm2gguf_cli.groups`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.options import option_table

if TYPE_CHECKING:
    from lfm2gguf.allocation import Budget
    from lfm2gguf.conversion import Recipe
    from lfm2gguf.imatrix import ImportanceMatrix
    from lfm2gguf.runner import Runner
    from lfm2gguf_cli.console import Display

# Where it comes from: convert, calibrate, imatrix and verify.
Source = Annotated[
    str, typer.Argument(help="A checkpoint's folder, or a Hub id such as LiquidAI/LFM2-1.2B.")
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Branch, tag or commit of the Hub repository."),
]
Pre = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The pre-tokenizer, where it is not recognised (such as lfm2)."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model's name in the file.", show_default="as found"),
]
Lora = Annotated[
    str | None,
    typer.Option(metavar="ADAPTER", help="A LoRA adapter to merge: a PEFT folder, or its Hub id."),
]

# Where it goes.
Output = Annotated[
    str | None,  # not a Path, which forgets the last slash
    typer.Option(
        "--output", "-o", "--outfile", metavar="FILE|FOLDER/",
        help="The file to write ({ftype} in it: the type), or a folder for files of the default "
        "name; one that is not there yet ends with /.",
        show_default="NAME-TYPE.gguf here",
    ),
]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Processes that work.", show_default="all cores"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless it fails.")]

Workspace = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="A folder for finished tensors: a calibration that was stopped goes on from there.",
        show_default="a temporary one",
    ),
]

# What a file is made as: one type, where several make no sense.
*_FIRST, _LAST = FileType.__members__
TYPE = ("--type", "-t", "--outtype")
Type = Annotated[str, typer.Option(*TYPE, metavar="TYPE", help="A file type, as convert takes it.")]


@dataclass(frozen=True)
class StorageOptions:
    """How weights are stored: convert and quantize."""

    type: Annotated[
        list[str] | None,
        typer.Option(
            *TYPE,
            metavar="TYPE[,TYPE...]",
            help=f"{', '.join(_FIRST)} or {_LAST}; "
            "several, also with -t again, come out of one reading.",
            show_default="Q4_K_M; F16 of a projector",
        ),
    ] = None
    split_max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Write several files of at most this size (500M, 4G)."),
    ] = None
    keep_split: Annotated[
        bool,
        typer.Option(
            "--keep-split", help="Of a GGUF in several files: as many, with the same tensors each."
        ),
    ] = False
    pure: Annotated[
        bool, typer.Option("--pure", help="Every tensor in the type's own; no mixture.")
    ] = False
    leave_output_tensor: Annotated[
        bool,
        typer.Option("--leave-output-tensor", help="Keep output.weight in the type it has."),
    ] = False
    output_tensor_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="For output.weight, and for an embedding that is the output too."
        ),
    ] = None
    token_embedding_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="For token_embd.weight.")
    ] = None
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=TYPE",
            help="For tensors whose names it is found in, such as ffn_down=Q6_K; several times.",
        ),
    ] = None
    tensor_type_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file of REGEX=TYPE, after those of --tensor-type."),
    ] = None
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|auto",
            help="An importance matrix, .gguf or .dat: see imatrix; auto: computed on the way.",
        ),
    ] = None
    include_weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Use the matrix for tensors whose names contain this."),
    ] = None
    exclude_weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Do not use the matrix for tensors whose names do."),
    ] = None

    @property
    def computes_matrix(self) -> bool:
        """Whether the importance matrix is to be computed on the way."""
        return str(self.imatrix) == "auto"

    def recipe(self, computed: ImportanceMatrix | None = None) -> Recipe:
        """Read the matrix, unless it was computed, and return it all as a recipe."""
        from lfm2gguf.conversion import Recipe, read_patterns

        patterns = list(self.tensor_type or ())
        if self.tensor_type_file is not None:
            patterns += read_patterns(self.tensor_type_file)
        matrix = computed
        if self.imatrix is not None and not self.computes_matrix:
            from lfm2gguf.imatrix import read_imatrix

            matrix = read_imatrix(self.imatrix)
        if matrix is not None:
            matrix = matrix.select(self.include_weights or (), self.exclude_weights or ())
        return Recipe(
            self.type, self.split_max_size, matrix, self.pure, self.leave_output_tensor,
            self.output_tensor_type, self.token_embedding_type, tuple(patterns),
            keep_split=self.keep_split,
        )  # fmt: skip


@dataclass(frozen=True)
class BudgetOptions:
    """What a file made to measure may weigh or lose: convert."""

    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            "--target-size",
            metavar="SIZE",
            help="Choose the tensors' types so that the file has at most this size (600MB, 1.5GB).",
        ),
    ] = None
    bpw: Annotated[
        float | None,
        typer.Option(
            "--bpw", "--target-bpw", help="Choose them for at most so many bits per weight."
        ),
    ] = None
    kld: Annotated[
        float | None,
        typer.Option(
            "--kld", help="Choose the smallest types of at most this mean KL divergence (nats)."
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="DEVICE",
            help="Choose among types that run fast there: cpu, cuda, vulkan or metal.",
            show_default="cpu",
        ),
    ] = None  # fmt: skip

    def budget(self) -> Budget | None:
        """Return what is asked for, None where nothing is."""
        if self.size is None and self.bpw is None and self.kld is None:
            if self.device is None:
                return None  # without what allocation imports, verification above all
            raise OptionError("--for chooses types under --size, --bpw or --kld; give one of them")
        from lfm2gguf.allocation import Budget

        return Budget.of(self.size, self.bpw, self.kld)


@dataclass(frozen=True)
class MaterialOptions:
    """What a model is calibrated on: calibrate, convert and imatrix."""

    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 text to calibrate on, or wikitext-2; may be given several times.",
            show_default="a bundled mixture of documentation, code and chat",
        ),
    ] = None
    chat: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Conversations as JSON (messages, ShareGPT, Alpaca, prompt and completion), in "
            "the model's own template.",
        ),
    ] = None
    chunks: Annotated[int, typer.Option(min=0, help="Chunks of each text; 0: all.")] = 128
    ctx: Annotated[int, typer.Option(min=32, help="Tokens of a chunk.")] = 512

    def arguments(self) -> dict[str, Any]:
        """Return them as calibrate and collect_imatrix take them."""
        return {
            "texts": self.text or (), "chat": self.chat,
            "chunks": self.chunks or None, "ctx": self.ctx,
        }  # fmt: skip


@dataclass(frozen=True)
class Saying:
    """How a command says what it did: all commands with a result."""

    quiet: Quiet = False
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    json_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON.")
    ] = None

    def display(self) -> Display:
        """Return where its words go."""
        from lfm2gguf_cli.console import Display

        return Display(quiet=self.quiet, json=self.json, json_file=self.json_file)


# Where a model comes from and runs: run, serve, bench and verify.
ModelOrId = Annotated[
    str, typer.Argument(help="A GGUF file, or a Hub id such as LiquidAI/LFM2-1.2B-GGUF.")
]
HubType = Annotated[
    str, typer.Option("--type", "-t", metavar="TYPE", help="Which file of a Hub repository.")
]
PathOrId = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FOLDER|ID",
        help="A GGUF file, a checkpoint's folder, or a Hub id, of which only headers are read.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|vulkan|rocm|sycl|metal|rpc:HOST:PORT,...",
        help="Where it runs; cuda:1 is the second of its kind, rpc: other machines.",
    ),
]


def _trial(value: bool) -> bool:
    if not value:  # read where a file is loaded, in workers of this process too
        os.environ["LFM2GGUF_TRIAL"] = "0"
    return value


Trial = Annotated[
    bool,
    typer.Option(
        "--trial/--no-trial",
        callback=_trial,
        help="Load a file that this machine has not seen in a child process first.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="physical cores")
]


@dataclass(frozen=True)
class PlaceOptions:
    """Where a model runs: run, serve and bench."""

    device: Device = "auto"
    gpu_layers: Annotated[
        int | None,
        typer.Option(help="Layers to offload; -1: all of them.", show_default="as many as fit"),
    ] = None
    threads: Threads = None
    trial: Trial = True

    def arguments(self) -> dict[str, Any]:
        """Return them as Runner and benchmark take them."""
        return {"device": self.device, "gpu_layers": self.gpu_layers, "threads": self.threads}


@dataclass(frozen=True)
class OpeningOptions:
    """Which model is opened, and how: run and serve."""

    type: HubType = "Q4_K_M"
    mmproj: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model's projector, for images and sound."),
    ] = None
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens of context, of all conversations together.",
            show_default="as trained, up to 8192",
        ),
    ] = None
    lookup: Annotated[
        int,
        typer.Option(
            help="Most tokens guessed at once from what the text repeats; 0 is off.",
            min=0,
            max=64,
        ),
    ] = 8
    draft: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A small model of the same vocabulary that guesses for a large one.",
        ),
    ] = None

    def open(self, model: str, **settings: Any) -> Runner:
        """Open a file, or the one of this type in a Hub repository."""
        from lfm2gguf.runner import Runner

        settings |= {"mmproj": self.mmproj, "context": self.context}
        settings |= {"lookup": self.lookup, "draft": self.draft}
        from lfm2gguf.checkpoint import is_repository

        if not is_repository(model) or model.endswith(".gguf"):
            return Runner(model, **settings)
        if not sys.stderr.isatty():  # progress bars are for people
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        return Runner.from_hub(model, self.type, **settings)


def sampling(
    name: str, *flags: str, shown: str = "the model's own", metavar: str | None = None
) -> Any:
    """Return the flag of an option of answers, with the option's range and description."""
    option = option_table()[name]
    low, high = option.range or (None, None)
    return typer.Option(
        *flags, min=low, max=high, help=option.doc, show_default=shown, metavar=metavar
    )
