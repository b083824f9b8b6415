"""Completions of texts: the best of several, and the prompt before its answer."""

from __future__ import annotations

from typing import Any

import openai
import pytest

PROMPT = "for i in range(10):"
ASK: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "seed": 5, "temperature": 1.5}


def test_the_best_of_several_are_the_likeliest(client: openai.OpenAI) -> None:
    """With a seed the same answers come, and are ranked here as well."""
    create = client.completions.create
    all_of_them = create(prompt=PROMPT, n=4, logprobs=0, **ASK)
    means = {}
    for choice in all_of_them.choices:
        assert choice.logprobs
        assert choice.logprobs.token_logprobs
        logprobs = choice.logprobs.token_logprobs
        means[choice.text] = sum(logprobs) / len(logprobs)
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    assert len(ranked) == 4
    best = create(prompt=PROMPT, n=2, best_of=4, **ASK)
    assert [choice.text for choice in best.choices] == ranked[:2]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.choices[0].logprobs is None  # nobody asked for them
    assert best.usage
    assert all_of_them.usage
    assert best.usage.completion_tokens == all_of_them.usage.completion_tokens


def test_each_prompt_has_its_best(client: openai.OpenAI) -> None:
    answer = client.completions.create(prompt=[PROMPT, "def f(x):"], best_of=2, **ASK)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_the_prompt_is_echoed(client: openai.OpenAI) -> None:
    create = client.completions.create
    plain = create(prompt=[PROMPT, "def"], **ASK)
    echoed = create(prompt=[PROMPT, "def"], echo=True, **ASK)
    wanted = [a + choice.text for a, choice in zip([PROMPT, "def"], plain.choices, strict=True)]
    assert [choice.text for choice in echoed.choices] == wanted
    streamed = ["", ""]
    for chunk in create(prompt=[PROMPT, "def"], echo=True, stream=True, **ASK):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == wanted
    tokens = create(prompt=[300, 301], echo=True, **{**ASK, "max_tokens": 1}).choices[0].text
    assert len(tokens) > 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(prompt=PROMPT, **{**ASK, **fields})
    assert caught.value.param == named
