"""Each member's own sampling, and the file's word over the card's."""

from __future__ import annotations

from typing import Any

import pytest

from lfm2gguf.errors import OptionError
from lfm2gguf.runner.options import OptionChanges, Options, default_options

CARDS: dict[str, dict[str, Any]] = {  # the model cards' recommendations
    "LFM2 1.2B": {"temperature": 0.3, "min_p": 0.15, "repeat_penalty": 1.05, "top_k": 0},
    "LFM2.5 1.2B Base": {"temperature": 0.3, "min_p": 0.15, "repeat_penalty": 1.05},
    "LFM2.5 1.2B Instruct": {"temperature": 0.1, "top_k": 50, "repeat_penalty": 1.05, "min_p": 0},
    "LFM2.5 230M": {"temperature": 0.1, "top_k": 50},
    "LFM2 24B A2B": {"temperature": 0.1, "top_k": 50},
    "LFM2.5 1.2B Thinking": {"temperature": 0.05, "top_k": 50, "repeat_penalty": 1.05},
    "LFM2.5 8B A1B": {"temperature": 0.2, "top_k": 80, "repeat_penalty": 1.05},
    "LFM2 VL 1.6B": {"temperature": 0.1, "min_p": 0.15, "repeat_penalty": 1.05},
    "LFM2 1.2B Extract": {"temperature": 0.0},
    "LFM2 1.2B RAG": {"temperature": 0.0},
    "LFM2 1.2B Tool": {"temperature": 0.0},
    "LFM2 350M PII Extract JP": {"temperature": 0.0},
    "my-finetune": {"temperature": 0.3, "min_p": 0.15},
}


@pytest.mark.parametrize("name", CARDS)
def test_the_card_s_recommendation(name: str) -> None:
    options = default_options({"general.name": name})
    assert {key: getattr(options, key) for key in CARDS[name]} == CARDS[name]
    dashed = default_options({"general.name": name.replace(" ", "-")})
    assert dashed == options


def test_the_file_s_own_word_wins() -> None:
    metadata = {
        "general.name": "LFM2 1.2B",
        "general.sampling.temp": "0.700000",
        "general.sampling.top_k": "20",
        "general.sampling.penalty_last_n": "-1",
    }
    options = default_options(metadata)
    assert (options.temperature, options.top_k, options.repeat_window) == (0.7, 20, -1)
    assert options.min_p == 0.15


def test_the_typed_keywords_are_the_options() -> None:
    assert set(OptionChanges.__annotations__) == set(Options.__dataclass_fields__)


def test_unknown_options_are_named_with_the_known() -> None:
    with pytest.raises(OptionError, match=r"'top_n'; the options are max_tokens, temperature"):
        Options().changed(top_n=3)


def test_a_seed_is_drawn_once() -> None:
    drawn = Options().seeded()
    assert drawn.seed is not None
    assert drawn.seeded() is drawn
