"""``lfm2gguf devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import Saying

if TYPE_CHECKING:
    from lfm2gguf_cli.console import Display


@grouped
def devices(
    warm_up: Annotated[
        bool,
        typer.Option(
            "--warm-up",
            help="Compile the kernels of the fast extra now, as a first conversion would.",
        ),
    ] = False,
    *,
    saying: Saying,
) -> None:
    """Show what this installation can run models on, and how to get what it cannot.

    Example: lfm2gguf devices
    """
    from lfm2gguf.llamacpp import overview
    from lfm2gguf.quants import describe_kernels

    display = saying.display()
    if warm_up:
        _compile(display)
    found = overview() | {"kernels": describe_kernels()}
    if display.gives(lambda: found):
        return
    build = found["build"]
    display.line(
        f"llama.cpp {build['llama.cpp']}, llama-cpp-python {build['llama_cpp_python']}, "
        f"{found['threads']} threads"
    )
    for device in found["devices"]:
        free = f"{device['memory_free'] / 1e9:.1f} of {device['memory_total'] / 1e9:.1f} GB free"
        display.line(f"{device['use']:<10}{device['description']}, {free}")
    kernels = found["kernels"]
    known = f"numba {kernels['numba']}" if kernels["numba"] else f"NumPy; {kernels['why']}"
    display.line(f"\nConversion by the kernels of {known}")
    if kernels["numba"] and not kernels["kept"]:
        display.line(
            "They are compiled in every run: let LFM2GGUF_CACHE name a folder to keep them"
        )
    for text in found["missing"].values():
        display.line(f"\n{text}")
    display.next("lfm2gguf", "run", "MODEL.gguf", "--device", found["devices"][-1]["use"])


def _compile(display: Display) -> None:
    from lfm2gguf.quants import CODECS, warm_up
    from lfm2gguf_cli.progress import progress_of

    with progress_of(display) as progress:
        ready = warm_up(CODECS.values(), progress)
    display.note(f"{ready} compiled kernels are ready" if ready else "NumPy's kernels are chosen")
