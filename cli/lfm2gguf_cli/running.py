"""The options of commands that run a model: bench, rpc-server, run, serve and verify.

They are apart from :mod:`lfm2gguf_cli.options` since a conversion does not need what they import.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf.options import option_table
from lfm2gguf_cli.options import HubType

if TYPE_CHECKING:
    from lfm2gguf.runner import Runner

ModelOrId = Annotated[
    str, typer.Argument(help="A GGUF file, or a Hub id such as LiquidAI/LFM2-1.2B-GGUF.")
]


def where(default: str) -> Any:
    """Return the flag of a device; ``default`` is what the library takes without it."""
    return typer.Option(
        "--device",
        metavar="auto|cpu|cuda|vulkan|rocm|sycl|metal|rpc:HOST:PORT,...",
        help="Where it runs; cuda:1 is the second of its kind, rpc: other machines.",
        show_default=default,
    )


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

    device: Annotated[str | None, where("auto")] = None
    gpu_layers: Annotated[
        int | None,
        typer.Option(help="Layers to offload; -1: all of them.", show_default="as many as fit"),
    ] = None
    threads: Threads = None
    trial: Trial = True

    def arguments(self) -> dict[str, Any]:
        """Return those that were given as Runner and benchmark take them."""
        options = {"device": self.device, "gpu_layers": self.gpu_layers, "threads": self.threads}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class OpeningOptions:
    """Which model is opened, and how: run and serve."""

    type: HubType = None
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

    def fetch(self, model: str) -> str:
        """Return a file's path: as given, or of the one of this type in a Hub repository."""
        if model.endswith(".gguf") and self.type is None:
            return model
        from lfm2gguf.checkpoint import gguf_path

        if not sys.stderr.isatty():  # progress bars are for people
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        return os.fspath(gguf_path(model, self.type))

    def open(self, model: str, **settings: Any) -> Runner:
        """Open a file, or the one of this type in a Hub repository."""
        from lfm2gguf.runner import Runner

        settings |= {"mmproj": self.mmproj, "context": self.context}
        settings |= {"lookup": self.lookup, "draft": self.draft}
        return Runner(self.fetch(model), **settings)


def sampling(
    name: str, *flags: str, shown: str = "the model's own", metavar: str | None = None
) -> Any:
    """Return the flag of an option of answers, with the option's range and description."""
    option = option_table()[name]
    low, high = option.range or (None, None)
    return typer.Option(
        *flags, min=low, max=high, help=option.doc, show_default=shown, metavar=metavar
    )
