"""How likely a prompt is, token by token, beside llama-cpp-python's own logits."""

from __future__ import annotations

import numpy as np
import pytest

from lfm2gguf.runner import Reply, Runner
from tests.making.logprobs import all_logprobs, logprobs_of
from tests.making.models import EXAMPLE, tiny_gguf
from tests.making.runners import endless, fresh

TEXT = (EXAMPLE / "README.md").read_text("utf-8")
CLOSE = 5e-2  # nats: keys and values are F16, and how they are summed depends on the batch


def given(reply: Reply) -> np.ndarray:
    assert reply.prompt_logprobs is not None
    return np.array([entry.logprob for entry in reply.prompt_logprobs])


@pytest.mark.parametrize("length", [1, 2, 40, 128, 129, 130, 700])
def test_they_are_llama_cpps(lfm: Runner, length: int) -> None:
    ids = lfm.tokenize(TEXT)[:length]
    reply = lfm.complete(ids, max_tokens=0, prompt_logprobs=3)
    assert (reply.text, reply.finish_reason, reply.logprobs) == ("", "length", None)
    assert reply.usage.completion_tokens == 0
    assert reply.prompt_logprobs is not None
    assert [entry.token for entry in reply.prompt_logprobs] == ids[1:]
    assert np.abs(given(reply) - logprobs_of(tiny_gguf(), ids)).max(initial=0) < CLOSE
    for entry, row in zip(reply.prompt_logprobs, all_logprobs(tiny_gguf(), ids), strict=False):
        assert entry.text == lfm.token_bytes(entry.token)
        wanted = np.sort(row)[:-4:-1]
        assert np.allclose([logprob for _, logprob in entry.top], wanted, atol=CLOSE)


def test_what_is_in_memory_is_computed_anew(lfm: Runner) -> None:
    ids = lfm.tokenize(TEXT)[50:150]
    plain = lfm.complete(ids, max_tokens=4, temperature=0)
    scored = lfm.complete(ids, max_tokens=4, temperature=0, prompt_logprobs=0, logprobs=0)
    assert (scored.usage.cached_tokens, scored.text) == (0, plain.text)
    assert np.abs(given(scored) - logprobs_of(tiny_gguf(), ids)).max() < CLOSE
    again = lfm.complete([*ids, *lfm.tokens.encode(plain.text, bos=False)], max_tokens=1)
    assert again.usage.cached_tokens >= len(ids)


def test_many_together_some_of_which_have_to_give_way() -> None:
    with fresh(context=320, parallel=3) as lfm:
        ids = lfm.tokenize(TEXT)
        prompts = [ids[10 * i : 10 * i + 150] for i in range(6)]
        bias = endless(lfm)
        streams = [
            lfm.stream_complete(p, max_tokens=30, temperature=0, prompt_logprobs=1, logit_bias=bias)
            for p in prompts
        ]
        plain = [lfm.stream_complete(p, max_tokens=40, temperature=0) for p in prompts]
        with lfm.scheduler.together():
            for stream in (*streams, *plain):
                stream.start()
        for prompt, stream in zip(prompts, streams, strict=True):
            reply = stream.wait()
            assert reply.usage.completion_tokens == 30
            assert np.abs(given(reply) - logprobs_of(tiny_gguf(), prompt)).max() < CLOSE
        for stream in plain:
            assert stream.wait().prompt_logprobs is None


def test_the_token_that_ends_is_told_of_as_well(lfm: Runner) -> None:
    """So that a caller who counts finds as many as were computed."""
    bias = {lfm.tokens.eos: 100.0}
    plain = lfm.complete("def", max_tokens=5, logprobs=1, logit_bias=bias)
    told = lfm.complete("def", max_tokens=5, logprobs=1, prompt_logprobs=1, logit_bias=bias)
    assert (plain.logprobs, plain.text, told.text) == ((), "", "")
    assert told.logprobs is not None
    [last] = told.logprobs
    assert (last.token, last.text) == (lfm.tokens.eos, b"<|im_end|>")
    assert told.usage.completion_tokens == plain.usage.completion_tokens == 1


def test_a_stream_tells_of_the_prompt_first(lfm: Runner) -> None:
    pieces = list(lfm.stream_complete("def f(x):", max_tokens=3, prompt_logprobs=0))
    assert pieces[0].prompt_logprobs is not None
    assert len(pieces[0].prompt_logprobs) == len(lfm.tokenize("def f(x):")) - 1
    assert not [piece for piece in pieces[1:] if piece.prompt_logprobs is not None]


def test_no_answer_leaves_the_prompt_in_memory(lfm: Runner) -> None:
    ids = lfm.tokenize(TEXT)[200:300]
    nothing = lfm.complete(ids, max_tokens=0)
    assert (nothing.text, nothing.usage.completion_tokens) == ("", 0)
    more = lfm.tokens.encode(" and more", bos=False)
    assert lfm.complete([*ids, *more], max_tokens=1).usage.cached_tokens == len(ids)
