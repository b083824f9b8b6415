"""Many turns: what is prefilled again, and contexts that fill up."""

from __future__ import annotations

from typing import Any

import pytest

from lfm2gguf.errors import ContextError
from tests.making.models import tiny_gguf
from tests.making.runners import GREEDY, QUESTIONS, endless, fresh, literally


def test_ten_turns_prefill_only_what_is_new() -> None:
    with fresh(context=1024) as lfm:
        history: list[Any] = [{"role": "system", "content": "You are brief. " * 8}]
        prefilled = []
        for turn in range(10):
            history.append({"role": "user", "content": f"Question {turn}: what is {turn}?"})
            reply = lfm.chat(history, max_tokens=24, seed=turn)
            history.append(reply.message)
            prefilled.append(reply.usage.prefilled_tokens)
    question = len(lfm_tokens("<|im_end|>\n<|im_start|>user\nQuestion 9: what is 9?<|im_end|>\n"))
    assert max(prefilled[1:]) <= question + 12, prefilled
    assert prefilled[0] > max(prefilled[1:])


def lfm_tokens(text: str) -> list[int]:
    from lfm2gguf.llamacpp import Model

    with Model(tiny_gguf()) as model:
        return model.tokenize(text)


def test_rewritten_history_goes_back_to_the_last_common_point() -> None:
    """The thinking of the first answer is dropped from the second prompt."""
    with fresh(context=1024) as lfm:
        first = [{"role": "user", "content": "word " * 120}]
        reply = lfm.chat(first, grammar=literally("<think>Long. Longer.</think>Yes."))
        assert reply.usage.prefilled_tokens > 120
        rewritten = [*first, {"role": "assistant", "content": "Yes."}]
        again = lfm.chat([*rewritten, {"role": "user", "content": "Sure?"}], max_tokens=4)
        assert again.usage.prefilled_tokens < 40
        alone = fresh(context=1024)
        with alone:
            other = alone.chat([*rewritten, {"role": "user", "content": "Sure?"}], max_tokens=4)
        assert other.usage.cached_tokens == 0


def test_a_restored_state_gives_the_answer_of_a_fresh_one() -> None:
    options = {**GREEDY, "max_tokens": 16, "logprobs": 0}
    system = {"role": "system", "content": "Answer about Python. " * 6}
    asked = [[system, {"role": "user", "content": question}] for question in QUESTIONS]
    with fresh(context=1024) as lfm:
        warm = [lfm.chat(messages, **options) for messages in asked]
    for messages, reply in zip(asked, warm, strict=True):
        with fresh(context=1024) as lfm:
            cold = lfm.chat(messages, **options)
        assert cold.usage.cached_tokens == 0
        assert cold.message == reply.message
    assert all(reply.usage.cached_tokens > 30 for reply in warm[1:])


def test_a_system_prompt_is_prefilled_once_for_many() -> None:
    system = {"role": "system", "content": "You know all about worms and cells. " * 12}
    with fresh(context=2048) as lfm:
        first = lfm.chat([system, {"role": "user", "content": "a" * 3}], max_tokens=2)
        others = lfm.batch(
            [[system, {"role": "user", "content": f"{n} is a number"}] for n in range(12)],
            max_tokens=4,
        )
    shared = first.usage.prompt_tokens - 20
    assert all(reply.usage.cached_tokens >= shared - 10 for reply in others)


def test_conversations_that_made_room_come_back_from_the_store() -> None:
    options = {**GREEDY, "max_tokens": 8}
    chats = [[{"role": "user", "content": f"{n}: " + "worm cell " * 30}] for n in range(6)]
    with fresh(parallel=2, context=1024) as lfm:
        for chat in chats:
            chat.append(lfm.chat(chat, **options).message)
            chat.append({"role": "user", "content": "And then?"})
        assert lfm.memory.stored_sequences > 0
        prefilled = [lfm.chat(chat, **options).usage.prefilled_tokens for chat in chats]
        assert max(prefilled) < 40
        assert 0 < lfm.memory.state_bytes <= lfm.memory.state_bytes_limit
    with fresh(parallel=1, context=1024, state_bytes=0) as lfm:
        for chat in chats[:2]:
            lfm.chat(chat, **options)
        assert lfm.memory.stored_sequences == 0


# --- contexts that fill up ---------------------------------------------------------------------


def test_a_prompt_that_does_not_fit() -> None:
    with fresh(context=256) as lfm:
        with pytest.raises(ContextError, match=r"has \d+ tokens, the context 256"):
            lfm.chat("word " * 400)
        with pytest.raises(ContextError, match="last turn alone"):
            lfm.chat("word " * 400, overflow="drop")
        turns: list[Any] = [{"role": "system", "content": "Brief."}]
        for n in range(12):
            turns += [
                {"role": "user", "content": f"{n} " + "word " * 30},
                {"role": "assistant", "content": "Yes."},
            ]
        turns.append({"role": "user", "content": "The last."})
        reply = lfm.chat(turns, overflow="drop", max_tokens=4)
        assert reply.usage.prompt_tokens < 256


def test_an_answer_that_fills_the_context_says_so() -> None:
    with fresh(context=256) as lfm:
        reply = lfm.chat("Hi", logit_bias=endless(lfm))
        assert reply.finish_reason == "context"
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 256
        assert lfm.chat("Hi", max_tokens=2).usage.completion_tokens <= 2


@pytest.mark.slow
def test_requests_that_outgrow_the_context_together_all_finish() -> None:
    """Each would fit alone: the youngest gives way and goes on later."""
    with fresh(parallel=4, context=256) as lfm:
        options = {"max_tokens": 150, "logit_bias": endless(lfm), **GREEDY}
        replies = lfm.batch([f"Number {n}?" for n in range(4)], **options)
        assert [r.finish_reason for r in replies] == ["length"] * 4
        alone = [lfm.chat(f"Number {n}?", **options) for n in range(4)]
    same = [a.text[:40] == b.text[:40] for a, b in zip(replies, alone, strict=True)]
    assert sum(same) >= 3
