"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_TYPES = (
    "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S or Q4_0; "
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
