"""The options of all commands that more than one has: each stands here, and nowhere else.

A group is a dataclass that commands take as one value (:mod:`lfm2gguf_cli.groups`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType

if TYPE_CHECKING:
    from lfm2gguf.allocation import Budget
    from lfm2gguf.conversion import Recipe
    from lfm2gguf.imatrix import ImportanceMatrix
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

OwnText = Annotated[
    float | None,
    typer.Option(
        min=0, max=16, show_default="1",
        help="Tokens that the checkpoint writes itself to be calibrated on, for each of the "
        "text's: more do better on other texts, and take longer.",
    ),
]  # fmt: skip


def own_text_arguments(given: float | None) -> dict[str, Any]:
    """Return it as calibrate takes it; where it is not given, calibrate knows how much."""
    return {} if given is None else {"own_text": given}


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
        if self.imatrix is None and (self.include_weights or self.exclude_weights):
            raise OptionError(
                "--include-weights and --exclude-weights say which tensors --imatrix is used for; "
                "give it, or leave them out"
            )
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


def text_cuts(chunks: int | None, ctx: int | None) -> dict[str, Any]:
    """Return how texts are cut, as far as it was given: the library knows the rest."""
    found: dict[str, Any] = {} if chunks is None else {"chunks": chunks or None}
    return found | ({} if ctx is None else {"ctx": ctx})


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
    chunks: Annotated[
        int | None,
        typer.Option(min=0, help="Chunks of each text; 0: all.", show_default="128"),
    ] = None
    ctx: Annotated[
        int | None, typer.Option(min=32, help="Tokens of a chunk.", show_default="512")
    ] = None

    @property
    def given(self) -> list[str]:
        """Return those of these options that were given, as they were."""
        options = {"--text": self.text and self.text[0], "--chat": self.chat,
                   "--chunks": self.chunks, "--ctx": self.ctx}  # fmt: skip
        return [f"{flag} {value}" for flag, value in options.items() if value is not None]

    def arguments(self) -> dict[str, Any]:
        """Return them as calibrate and collect_imatrix take them; they know the defaults."""
        if self.chunks is not None and self.chat is not None and not self.text:
            raise OptionError(
                f"--chunks {self.chunks}: says how much is taken of each text, and conversations "
                "are taken whole; leave it out"
            )
        return {
            "texts": self.text or (), "chat": self.chat, **text_cuts(self.chunks, self.ctx)
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


# A file that is there already: doctor, inspect, run, serve and verify.
HubType = Annotated[
    str | None,
    typer.Option(
        "--type", "-t", metavar="TYPE", help="Which file of a Hub repository.",
        show_default="Q4_K_M",
    ),
]  # fmt: skip
PathOrId = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FOLDER|ID",
        help="A GGUF file, a checkpoint's folder, or a Hub id, of which only headers are read.",
    ),
]
