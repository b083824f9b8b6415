"""The sampler against llama.cpp's own chain over the whole vocabulary."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import OptionError, RuntimeFailureError
from lfm2gguf.llamacpp import Floats, Model, Sampler
from lfm2gguf.options import Options
from tests.making.models import tiny_gguf

OFF: dict[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
    "repeat_window": 0, "seed": 0, "logit_bias": None, "frequency_penalty": 0.0,
    "presence_penalty": 0.0, "top_n_sigma": -1.0, "typical_p": 1.0, "xtc_probability": 0.0,
    "xtc_threshold": 0.1, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


def whole_chain(n_vocab: int, options: dict[str, Any]) -> Callable[[Floats], int]:
    """llama.cpp's samplers for these options, each over every token."""
    from llama_cpp import llama_cpp as llama

    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    bias = options["logit_bias"] or {}
    biases = (llama.llama_logit_bias * len(bias))(*bias.items())
    names = ("repeat_window", "repeat_penalty", "frequency_penalty", "presence_penalty")
    penalties = [options[name] for name in names]
    ending = (
        [
            llama.llama_sampler_init_top_n_sigma(options["top_n_sigma"]),
            llama.llama_sampler_init_top_k(options["top_k"]),
            llama.llama_sampler_init_typical(options["typical_p"], 1),
            llama.llama_sampler_init_top_p(options["top_p"], 1),
            llama.llama_sampler_init_min_p(options["min_p"], 1),
            llama.llama_sampler_init_xtc(
                options["xtc_probability"], options["xtc_threshold"], 1, options["seed"]
            ),
            llama.llama_sampler_init_temp_ext(
                options["temperature"], options["dynatemp_range"], options["dynatemp_exponent"]
            ),
            llama.llama_sampler_init_dist(options["seed"]),
        ]
        if options["temperature"] > 0
        else [llama.llama_sampler_init_greedy()]
    )
    for sampler in (
        llama.llama_sampler_init_logit_bias(n_vocab, len(bias), biases),
        llama.llama_sampler_init_penalties(n_vocab, *penalties),
        *ending,
    ):
        llama.llama_sampler_chain_add(chain, sampler)

    def draw(logits: Floats) -> int:
        data = (llama.llama_token_data * n_vocab)(*((i, x, 0.0) for i, x in enumerate(logits)))
        array = llama.llama_token_data_array(data, n_vocab, -1, False)
        llama.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        llama.llama_sampler_accept(chain, token)
        return token

    return draw


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    temperature=st.sampled_from([0.0, 0.05, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 50, 80, 400]),
    top_p=st.sampled_from([1.0, 0.9, 0.1]),
    min_p=st.sampled_from([0.0, 0.15, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.05, 1.5, 0.9]),
    repeat_window=st.sampled_from([0, 1, 3, 64]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, -1.5]),
    seed=st.integers(0, 2**32 - 2),
    spread=st.sampled_from([1.0, 5.0, 20.0]),
    biased=st.booleans(),
)
def test_draws_what_the_whole_chain_draws(
    model: Model, spread: float, biased: bool, **changes: Any
) -> None:
    bias = {5: 3.5, 7: -2.25, 9: -np.inf} if biased else None
    options = {**OFF, **changes, "logit_bias": bias}
    theirs = whole_chain(model.n_vocab, options)
    ours = Sampler(model, Options(**options))
    draw = np.random.default_rng(options["seed"])
    logits = (spread * draw.standard_normal(model.n_vocab)).astype(np.float32)
    for _ in range(6):  # the same logits again: the penalty must be felt
        assert ours.sample(logits) == theirs(logits)
    ours.close()


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.0}, {"min_p": 0.1}, {"top_k": 5}, {"repeat_window": 8, "seed": 1},
])  # fmt: skip
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_token(model: Model, options: dict[str, Any], bad: float) -> None:
    """Damaged weights: llama.cpp would pick a token that does not exist."""
    sampler = Sampler(model, Options(**(OFF | options)))
    logits = np.zeros(model.n_vocab, np.float32)
    logits[7] = bad
    with pytest.raises(RuntimeFailureError, match="not numbers"):
        sampler.sample(logits)
    logits[7] = 1.0
    assert 0 <= sampler.sample(logits) < model.n_vocab
    sampler.close()


@pytest.mark.parametrize("counts", ["{2,1}", "{ 1 , 0 }", "{007,6}"])
def test_repetitions_with_more_at_least_than_at_most(model: Model, counts: str) -> None:
    """llama.cpp subtracts one from the other, unsigned, and makes as many rules."""
    with pytest.raises(OptionError, match="more often than at most"):
        Sampler(model, Options(**OFF, grammar=f'root ::= "a"{counts} "b"'))
    literal = f'root ::= "{counts}" [{counts}] # {counts}'
    Sampler(model, Options(**OFF, grammar=literal)).close()


@pytest.mark.parametrize("token", ["<[2]>", "!<[2]>", "<|im_end|>"])
def test_tokens_in_a_grammar(model: Model, token: str) -> None:
    """Beside characters they end the process ("Unexpected empty grammar stack")."""
    with pytest.raises(OptionError, match="write their text"):
        Sampler(model, Options(**OFF, grammar=f'root ::= ({token}"a" | "b")+'))
    Sampler(model, Options(**OFF, grammar=f'root ::= "{token}" [<] # <')).close()


@pytest.mark.parametrize(
    "changes",
    [
        {"top_n_sigma": 1.0},
        {"top_n_sigma": 2.0, "top_k": 3},
        {"typical_p": 0.3},
        {"typical_p": 0.7, "min_p": 0.2, "top_k": 40},
        {"typical_p": 0.5, "min_p": 0.1},
        {"xtc_probability": 1.0, "min_p": 0.02},
        {"xtc_probability": 0.5, "xtc_threshold": 0.05, "top_k": 20},
        {"dynatemp_range": 0.9},
        {"dynatemp_range": 0.5, "dynatemp_exponent": 2.0, "min_p": 0.1},
    ],
)
def test_the_rarer_samplers(model: Model, changes: dict[str, Any]) -> None:
    options = {**OFF, **changes, "seed": 7}
    theirs, plain = whole_chain(model.n_vocab, options), whole_chain(model.n_vocab, OFF)
    ours = Sampler(model, Options(**options))
    draw = np.random.default_rng(3)
    rows = [(3 * draw.standard_normal(model.n_vocab)).astype(np.float32) for _ in range(12)]
    found = [ours.sample(logits) for logits in rows]
    ours.close()
    assert found == [theirs(logits) for logits in rows]
    assert found != [plain(logits) for logits in rows]


class SlowGrammar:
    """A thread's clock by which each call of a grammar takes some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._readings = seconds, 0

    def __call__(self) -> float:
        self._readings += 1
        return self._seconds * (self._readings // 2)  # it is read before and after a call


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [(0.15, 200), (0.35, 12), (2.7, 0)],  # two calls a token: 5 s, and 0.3 s for each, are theirs
)
def test_a_grammar_that_takes_too_long(
    model: Model, seconds: float, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(model, Options(**{**OFF, "temperature": 0.0}, grammar="root ::= [a-z]*"))
    logits = np.zeros(model.n_vocab, np.float32)
    logits[model.tokenize("a")[0]] = 1.0
    monkeypatch.setattr(time, "thread_time", SlowGrammar(seconds))
    drawn = 0
    with contextlib.suppress(OptionError):
        while drawn < 200:
            sampler.sample(logits)
            drawn += 1
    assert drawn == tokens
    if tokens < 200:
        with pytest.raises(OptionError, match=r"^grammar: it takes .* more than 0\.3 s"):
            sampler.sample(logits)
    sampler.close()
