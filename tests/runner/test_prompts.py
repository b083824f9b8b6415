"""Answers come back into prompts by the tokens that were generated, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lfm2gguf import Runner
from lfm2gguf.llamacpp import Model
from lfm2gguf.runner.engine.prompt_tokens import PromptTokens
from tests.making.models import tiny_gguf

HEAD = "<|startoftext|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
TURN = "<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
ASK = "What does str.split do?"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


def spelled(model: Model, text: str) -> list[int]:
    """Letter by letter, as a tokenizer would not."""
    return [token for letter in text for token in model.tokenize(letter)]


def test_an_answer_keeps_the_tokens_it_was_generated_with(model: Model) -> None:
    prompts, answer = PromptTokens(model), spelled(model, "split")
    assert answer != model.tokenize("split")
    prompts.remember(HEAD, "split", answer)
    tokens = prompts.encode(HEAD + "split" + TURN)
    at = len(prompts.encode(HEAD))
    assert tokens[at : at + len(answer)] == answer
    assert model.detokenize(tokens, special=True) == HEAD + "split" + TURN


@pytest.mark.parametrize("extra", ["<|pad|>", "<|endoftext|>", "no text"])
@pytest.mark.parametrize("answer", ["", "split"])
def test_tokens_that_are_not_in_the_text_are_not_remembered(
    model: Model, answer: str, extra: str
) -> None:
    prompts = PromptTokens(model)
    before = prompts.encode(HEAD + answer + TURN)
    no_text = next(t for t in range(model.n_vocab) if not model.piece(t, special=True))
    hidden = [no_text] if extra == "no text" else model.tokenize(extra, special=True)
    assert len(hidden) == 1
    for tokens in ([*spelled(model, answer), *hidden], [*hidden, *spelled(model, answer)]):
        prompts.remember(HEAD, answer, tokens)
        assert prompts.encode(HEAD + answer + TURN) == before


def test_a_plain_completion_is_no_answer(model: Model) -> None:
    prompts = PromptTokens(model)
    asked = HEAD.replace("Hi", "split")
    before = prompts.encode(asked)
    prompts.remember("user\n", "split", spelled(model, "split"))
    assert prompts.encode(asked) == before


def test_what_one_request_generates_unseen_is_in_no_other_prompt() -> None:
    with Runner(tiny_gguf(), device="cpu", threads=1, context=512) as lfm:
        greedy: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12}
        expected = lfm.chat(ASK, **greedy)
        for token in (0, len(lfm.tokens) - 1):  # <|pad|>, and one without a text
            unseen = lfm.chat("Hm", max_tokens=4, logit_bias={token: 1000.0}, temperature=0.0)
            assert (unseen.text, unseen.usage.completion_tokens) == ("", 4)
        again = lfm.chat(ASK, **greedy)
        assert again.usage.prompt_tokens == expected.usage.prompt_tokens
        assert again.text == expected.text
