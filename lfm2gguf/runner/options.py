"""Each member's own sampling, and what the file says over it."""

from __future__ import annotations

from lfm2gguf.members import Lookup, member_of
from lfm2gguf.options import Options

# general.sampling.* (gguf-py/gguf/constants.py, Keys.General): llama.cpp's names for ours
_KEYS = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "penalty_repeat": ("repeat_penalty", float),
    "penalty_last_n": ("repeat_window", int),
}


def default_options(metadata: Lookup) -> Options:
    """Return a model's own sampling options.

    The card's recommendation for the member, and over it whatever the file itself says under
    ``general.sampling.*``.
    """
    given = {
        option: read(round(float(str(value)), 6))  # float32 in the file
        for key, (option, read) in _KEYS.items()
        if (value := metadata.get(f"general.sampling.{key}", None)) is not None
    }
    return Options(**{**member_of(metadata).sampling, **given})
