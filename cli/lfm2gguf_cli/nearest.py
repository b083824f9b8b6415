"""What an option that a command lacks was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from lfm2gguf_cli.plain import keep_plain

# Names that other programs have: llama.cpp's, transformers', Ollama's, or habit's.
MEANT = {
    "adapter": ("lora",),
    "adapter-scale": ("lora-scale",),
    "bits": ("type",),
    "dtype": ("type",),
    "format": ("type",),
    "ftype": ("type",),
    "qtype": ("type",),
    "quant": ("type",),
    "quant-type": ("type",),
    "quantization": ("type",),
    "quantize": ("type",),
    "dest": ("output",),
    "out": ("output",),
    "output-dir": ("output",),
    "output-file": ("output",),
    "overwrite": ("force",),
    "yes": ("force",),
    "nthread": ("jobs", "threads"),
    "num-threads": ("threads", "jobs"),
    "threads": ("jobs",),
    "workers": ("jobs",),
    "base-model": ("base", "reference"),
    "ref": ("reference",),
    "file": ("text",),
    "dataset": ("text",),
    "n-chunks": ("chunks",),
    "ctx-size": ("context", "ctx", "contexts"),
    "n-ctx": ("context", "ctx", "contexts"),
    "n-gpu-layers": ("gpu-layers",),
    "ngl": ("gpu-layers",),
    "max-new-tokens": ("max-tokens",),
    "n-predict": ("max-tokens",),
    "num-predict": ("max-tokens",),
    "num-ctx": ("context", "ctx"),
    "temp": ("temperature",),
    "repetition-penalty": ("repeat-penalty",),
    "system-prompt": ("system",),
    "parallel-requests": ("parallel",),
    "np": ("parallel",),
    "silent": ("quiet",),
    "projector": ("mmproj",),
    "token": ("api-key",),
    "branch": ("revision",),
    "name": ("model-name",),
}
ALIKE = 0.75  # of difflib's ratio: below it the nearest name is another thing


class Command(TyperCommand):
    """A command that names the option that was meant, if one fits."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does."""
        for param in self.get_params(ctx):  # --help among them
            keep_plain(param)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            self._explain(error, ctx.command_path)
            raise

    def _explain(self, error: Any, command: str) -> None:
        """Say what was meant, whether the error is Click's own or of Typer's copy of it."""
        given = getattr(error, "option_name", None)
        if given is None or not hasattr(error, "possibilities"):
            return
        known = [name for param in self.params for name in (*param.opts, *param.secondary_opts)]
        near = nearest(given, known)
        advice = f"Did you mean {near}?" if near else f"{command} --help lists the options."
        error.possibilities, error.message = None, f"No such option: {given}. {advice}"


def nearest(given: str, known: Sequence[str]) -> str | None:
    """Return which of a command's options was meant; None where that is a guess."""
    word = given.lstrip("-").lower().replace("_", "-")
    if f"--{word}" in known:
        return f"--{word}"
    for name in MEANT.get(word, ()):
        if f"--{name}" in known:
            return f"--{name}"
    names = [name for name in known if name.startswith("--")]
    for name in names:  # a beginning, as argparse takes it
        if len(word) > 2 and name.startswith(f"--{word}"):
            return name
    found = difflib.get_close_matches(f"--{word}", names, n=1, cutoff=ALIKE)
    return found[0] if found else None
