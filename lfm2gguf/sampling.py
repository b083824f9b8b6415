"""Each member's own sampling, and what the file says over it."""

from __future__ import annotations

import math

from lfm2gguf.errors import GGUFError, OptionError
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

    Raises:
        GGUFError: a value there is not a number, or not one that its option takes.
    """
    given = {
        option: read(_number(key, value))
        for key, (option, read) in _KEYS.items()
        if (value := metadata.get(f"general.sampling.{key}", None)) is not None
    }
    try:
        return Options(**{**member_of(metadata).sampling, **given})
    except OptionError as error:
        raise GGUFError(f"the file's general.sampling keys: {error}") from error


def _number(key: str, value: object) -> float:
    try:
        number = round(float(str(value)), 6)  # float32 in the file
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise GGUFError(f"general.sampling.{key} is {value!r:.80}, not a number; delete that key")
    return number
