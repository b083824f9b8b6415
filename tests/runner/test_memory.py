"""Prefixes, marks and the store, without a model where none is needed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.llamacpp import Chunk, Context, Model
from lfm2gguf.runner.engine.memory import MAX_MARKS, Held, Memory, common_prefix
from tests.making.models import tiny_gguf

tokens = st.lists(st.integers(0, 3), max_size=40)


@given(tokens, tokens)
def test_the_common_prefix(a: list[int], b: list[int]) -> None:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    assert common_prefix(a, b) == len(list(same))


@given(tokens, tokens.filter(bool), st.sets(st.integers(1, 40)))
def test_what_can_be_reached(held: list[int], prompt: list[int], marks: set[int]) -> None:
    """Never the last token, only common tokens, and only the end or a mark."""
    known = Held(held, {at: b"" for at in marks if at <= len(held)})
    reach = known.reach(prompt)
    assert reach < len(prompt)
    assert held[:reach] == prompt[:reach]
    assert reach in (0, len(held), *known.marks)


def test_marks_are_bounded_and_the_store_keeps_its_limit() -> None:
    with Model(tiny_gguf()) as model, Context(model, n_ctx=512, n_seq_max=2, unified=True) as ctx:
        memory = Memory(ctx, limit=400_000)
        for n in range(12):
            prompt = [5 + n] * 40 + [7]
            slot = memory.take(prompt)
            while len(slot.tokens) < 40:
                ctx.decode([Chunk(slot.seq, len(slot.tokens), prompt[:4])])
                slot.tokens += prompt[:4]
                memory.mark(slot)
            memory.release(slot)
            assert len(slot.marks) <= MAX_MARKS
            assert min(slot.marks) == 4  # the first stays
        use = memory.use
        marks = sum(slot.mark_bytes for slot in memory.slots)
        assert use.state_bytes - marks <= use.state_bytes_limit == 400_000
        assert use.held_tokens == 80
        assert [stored.tokens[0] for stored in memory._stored][-1] == 5 + 9  # the latest stay
        assert 0 < use.stored_sequences < 10
        while memory.evict():
            pass
        assert memory.use.held_tokens == 0


@pytest.mark.parametrize("limit", [0, 1 << 24])
def test_a_sequence_comes_back_from_the_store_or_is_computed_again(limit: int) -> None:
    with Model(tiny_gguf()) as model, Context(model, n_ctx=256, n_seq_max=1, unified=True) as ctx:
        memory = Memory(ctx, limit)
        first, second = [5] * 50, [6] * 50
        for prompt in (first, second):
            slot = memory.take(prompt)
            ctx.decode([Chunk(slot.seq, len(slot.tokens), prompt[len(slot.tokens) :])])
            slot.tokens = list(prompt)
            memory.release(slot)
        slot = memory.take([*first, 7])
        assert slot.tokens == (first if limit else [])
        assert ctx.length(0) == len(slot.tokens)
