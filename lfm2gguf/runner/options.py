"""Each member's own sampling, and what the file says over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfm2gguf.options import Options

_OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
_GREEDY = {**_OFF, "temperature": 0.0}
_LFM2 = {**_OFF, "temperature": 0.3, "min_p": 0.15, "repeat_penalty": 1.05}
_TOP_50 = {**_OFF, "temperature": 0.1, "top_k": 50, "repeat_penalty": 1.05}

# The model cards' recommendations. The first row whose words all occur in the name applies.
_RECOMMENDED: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("extract",), _GREEDY),
    (("-rag",), _GREEDY),
    (("-tool",), _GREEDY),
    (("pii",), _GREEDY),
    (("lfm2.5", "thinking"), {**_TOP_50, "temperature": 0.05}),
    (("lfm2.5", "8b-a1b"), {**_TOP_50, "temperature": 0.2, "top_k": 80}),
    (("-vl",), {**_LFM2, "temperature": 0.1}),
    (("24b-a2b",), _TOP_50),
    (("lfm2.5", "base"), _LFM2),
    (("lfm2.5",), _TOP_50),
    ((), _LFM2),
)

# general.sampling.* (gguf-py/gguf/constants.py, Keys.General): llama.cpp's names for ours
_KEYS = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "penalty_repeat": ("repeat_penalty", float),
    "penalty_last_n": ("repeat_window", int),
}


def default_options(metadata: Mapping[str, str]) -> Options:
    """Return a model's own sampling options.

    The card's recommendation for the member the file names, and over it whatever the file
    itself says under ``general.sampling.*``.
    """
    names = ("general.name", "general.basename", "general.finetune", "general.size_label")
    name = "-".join(metadata.get(key, "") for key in names).lower().replace(" ", "-")
    chosen = next(values for words, values in _RECOMMENDED if all(word in name for word in words))
    given = {
        option: read(round(float(metadata[f"general.sampling.{key}"]), 6))  # float32 in the file
        for key, (option, read) in _KEYS.items()
        if f"general.sampling.{key}" in metadata
    }
    return Options(**{**chosen, **given})
