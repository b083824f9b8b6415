"""Completions of texts: the best of several, and the prompt before its answer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openai
import pytest

from lfm2gguf import Runner
from tests.making.logprobs import all_logprobs
from tests.making.models import EXAMPLE, tiny_gguf

README = (EXAMPLE / "README.md").read_text("utf-8")[:900]

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


def as_the_harness_asks(client: openai.OpenAI, prompts: Any, **more: Any) -> Any:
    """As lm-evaluation-harness does (``lm_eval/models/openai_completions.py``, 0.4.13)."""
    asked = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    return client.completions.create(model="tiny", prompt=prompts, **{**asked, **more})


@pytest.mark.parametrize("form", ["ids", "texts"])
@pytest.mark.parametrize("max_tokens", [0, 1])
def test_how_likely_prompts_are(
    client: openai.OpenAI, runner: Runner, form: str, max_tokens: int
) -> None:
    texts = ["for i in range(10):\n    print(i)", "def f(x):", "The sun is 日本 \N{SNAKE}", README]
    ids = [runner.tokens.encode(text, bos=False) for text in texts]
    front = [runner.tokens.bos] if form == "texts" else []
    answer = as_the_harness_asks(client, ids if form == "ids" else texts, max_tokens=max_tokens)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for text, tokens, choice in zip(texts, ids, answer.choices, strict=True):
        told = choice.logprobs
        assert len(told.tokens) == len(tokens) + max_tokens
        assert choice.text.startswith(text)
        assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
        wanted = all_logprobs(tiny_gguf(), front + tokens)[len(front) :]
        behind = told.token_logprobs[1 : len(tokens)]
        likely = [row[token] for row, token in zip(wanted, tokens[1:], strict=False)]
        assert np.allclose(behind, likely, atol=5e-2)
        tops = told.top_logprobs[1 : len(tokens)]
        best = [max(top.values()) for top in tops]
        assert np.allclose(best, wanted[:-1].max(1), atol=5e-2)
        greedy = [value == most for value, most in zip(behind, best, strict=True)]
        assert greedy == [row.argmax() == t for row, t in zip(wanted, tokens[1:], strict=False)]
        assert all(len(top) <= 2 for top in tops)
        places = [*told.text_offset, len(choice.text)]
        if text.isascii():
            parts = [choice.text[a:b] for a, b in itertools.pairwise(places)]
            assert parts[: len(tokens)] == told.tokens[: len(tokens)]
    assert answer.usage.prompt_tokens == sum(len(front) + len(tokens) for tokens in ids)
    assert answer.usage.completion_tokens == max_tokens * 4


def test_a_place_is_that_of_a_character_where_tokens_are_parts_of_one(
    client: openai.OpenAI, runner: Runner
) -> None:
    text = "a \N{SNAKE} b"
    told = as_the_harness_asks(client, text, max_tokens=0).choices[0].logprobs
    pieces = [runner.token_bytes(t) for t in runner.tokens.encode(text, bos=False)]
    ends = list(itertools.accumulate(map(len, pieces)))
    starts = [0, *ends[:-1]]
    assert told.text_offset == [len(text.encode()[:at].decode("utf-8", "ignore")) for at in starts]


def test_what_is_streamed_of_a_prompt_is_the_same(client: openai.OpenAI) -> None:
    prompts = [PROMPT, [300, 301, 302]]
    for prompt in prompts:
        whole = as_the_harness_asks(client, prompt, max_tokens=4, n=2).choices
        parts: list[list[Any]] = [[], []]
        for chunk in as_the_harness_asks(client, prompt, max_tokens=4, n=2, stream=True):
            parts[chunk.choices[0].index].append(chunk.choices[0])
        for choice, found in zip(whole, parts, strict=True):
            assert "".join(part.text for part in found) == choice.text
            for name in ("tokens", "text_offset", "top_logprobs"):
                told = [x for part in found if part.logprobs for x in getattr(part.logprobs, name)]
                if name == "top_logprobs":
                    assert [t and t.keys() for t in told] == [
                        t and t.keys() for t in choice.logprobs.top_logprobs
                    ]
                else:
                    assert told == getattr(choice.logprobs, name)


def test_nothing_may_be_asked_for(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "length")
    assert answer.usage
    assert answer.usage.completion_tokens == 0
    chat: Any = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.BadRequestError):  # as OpenAI
        client.chat.completions.create(model="tiny", messages=chat, max_tokens=0)


def test_the_token_that_was_drawn_is_among_the_likeliest(client: openai.OpenAI) -> None:
    """As OpenAI: "there may be up to logprobs+1 elements"."""
    ask = {**ASK, "temperature": 2.0, "max_tokens": 30}
    told = client.completions.create(prompt=PROMPT, logprobs=2, **ask).choices[0].logprobs
    assert told
    rows = zip(told.tokens or (), told.token_logprobs or (), told.top_logprobs or (), strict=True)
    for token, logprob, top in rows:
        assert token in top
        assert len(top) in (2, 3)
        assert top[token] >= logprob


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(prompt=PROMPT, **{**ASK, **fields})
    assert caught.value.param == named
