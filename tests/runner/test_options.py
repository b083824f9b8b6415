"""Each member's own sampling, and the file's word over the card's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_type_hints

import numpy as np
import pytest

from lfm2gguf import Runner
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, Sampler
from lfm2gguf.options import LARGEST_SEED, OptionChanges, Options, option_table
from lfm2gguf.sampling import default_options
from tests.making.models import tiny_gguf

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "5"}, {"max_tokens": 5.5}, {"max_tokens": True}, {"temperature": None},
        {"temperature": "hot"}, {"temperature": math.nan}, {"top_k": 1.5}, {"stop": 5},
        {"stop": [5]}, {"logit_bias": {"5": 1.0}}, {"logit_bias": {5: math.nan}},
        {"logit_bias": {5: math.inf}}, {"grammar": 5}, {"json_schema": [1]}, {"adapter": 3},
        {"seed": 2**32 - 1}, {"seed": -1}, {"logprobs": 1.0},
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(OptionError, match=f"^{name} is "):
        Options().changed(**wrong)


def test_numpy_numbers_are_numbers() -> None:
    options = Options().changed(
        temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint32(7), max_tokens=np.int8(2)
    )
    with Model(tiny_gguf()) as model:
        sampler = Sampler(model, options)
        assert 0 <= sampler.sample(np.zeros(model.n_vocab, np.float32)) < model.n_vocab
        sampler.close()


def test_every_seed_can_be_drawn_again() -> None:
    with Runner(tiny_gguf(), device="cpu", threads=1, context=256) as lfm:
        for seed in (0, LARGEST_SEED):
            options: Any = {"seed": seed, "temperature": 2.0, "max_tokens": 8, "top_k": 0}
            assert len({lfm.chat("Hi", **options).text for _ in range(4)}) == 1


def test_a_wrong_option_harms_no_neighbour() -> None:
    with Runner(tiny_gguf(), device="cpu", threads=1, context=1024) as lfm:
        stream = lfm.stream("Go on.", max_tokens=200, ignore_eos=True)
        with pytest.raises(OptionError):
            lfm.chat("Hi", stop=[5])  # type: ignore[list-item]
        assert stream.wait().usage.completion_tokens == 200


@pytest.mark.parametrize("name", ["messages", "tools", "self", "add_generation_prompt"])
def test_variables_that_are_the_runners_are_refused(name: str) -> None:
    with (
        Runner(tiny_gguf(), device="cpu", threads=1, context=256) as lfm,
        pytest.raises(OptionError, match=f"{name!r} is not among"),
    ):
        lfm.chat("Hi", template={name: []})


def test_the_typed_keywords_have_the_kinds_of_the_fields() -> None:
    assert get_type_hints(OptionChanges) == get_type_hints(Options)


def test_every_option_is_explained() -> None:
    assert list(option_table()) == [field.name for field in dataclasses.fields(Options)]
    for option in option_table().values():
        assert option.doc.endswith("."), option.name
        assert option.doc.count(" ") > 3, option.name
        numeric = option.kind in (int, float)
        assert (option.range is not None) == numeric, option.name
