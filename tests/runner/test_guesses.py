"""Guesses from what a text repeats: they change the speed of an answer and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.bench.workloads import workload
from lfm2gguf.errors import GGUFError, OptionError, RuntimeFailureError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Chunk, Context, Model
from lfm2gguf.runner import Reply, Runner
from lfm2gguf.runner.engine.guesses import LENGTHS, Guesses, Lookup
from tests.making.models import tiny_gguf
from tests.making.runners import GREEDY, dictated, endless, fresh, literally

LIST = "\n".join(f"def get_{name}(self): return self.{name}" for name in "abcdefgh")


def follower(tokens: list[int], length: int) -> int | None:
    """Where the last run of tokens stood before, the latest time: the place behind it."""
    tail = tokens[-length:]
    places = range(length, len(tokens))
    return max((at for at in places if tokens[at - length : at] == tail), default=None)


@given(st.lists(st.integers(-1, 2), max_size=60), st.integers(0, 9), st.integers(0, 60))
def test_a_guess_is_what_followed(tokens: list[int], most: int, before: int) -> None:
    lookup = Lookup()
    lookup.guess(tokens[:before], 1)  # what is known is added to
    places = [follower(tokens, length) for length in LENGTHS if length <= len(tokens)]
    at = next((place for place in places if place is not None), None)
    wanted = [] if at is None else tokens[at : at + most]
    wanted = wanted[: wanted.index(-1)] if -1 in wanted else wanted
    assert lookup.guess(tokens, most) == wanted


def test_right_guesses_grow_and_wrong_ones_pause() -> None:
    lookup, text = Guesses(8, Lookup()), [1, 2, 3, 4, 5, 6, 7, 8, 9] * 4
    for size in (2, 4, 8, 8):
        assert lookup.guess(text, 99) == text[: len(lookup.guess(text, 99))]
        assert len(lookup.guess(text, 99)) == size
        lookup.learn(len(text), size, size)
    lookup.learn(len(text), 8, 0)
    assert lookup.guess([*text, *text[:3]], 99) == []
    assert len(lookup.guess([*text, *text[:4]], 99)) == 2
    lookup.learn(len(text), 2, 0)
    assert lookup.guess([*text, *text[:9]], 99) == []


class Unsure:
    """A model that is asked, computes, and is sure of something at the places given only."""

    in_vain = False

    def __init__(self, *sure: int) -> None:
        self.asked: list[int] = []
        self._sure = sure

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        self.asked.append(len(tokens))
        self.in_vain = len(tokens) not in self._sure
        return [] if self.in_vain else [7]


def test_who_is_never_sure_is_seldom_asked() -> None:
    source = Unsure()
    guesses = Guesses(8, source)
    for length in range(1, 1001):
        assert guesses.guess([0] * length, 99) == []
    assert source.asked == [2**i for i in range(10)]


def test_who_was_right_is_asked_again_at_once() -> None:
    source = Unsure(4)
    guesses = Guesses(8, source)
    for length in range(1, 10):
        if guesses.guess([0] * length, 99):
            guesses.learn(length + 1, 1, 1)
    assert source.asked == [1, 2, 4, 5, 6, 8]


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_guesses_that_are_seldom_right_cost_little(right: int) -> None:
    """All were right at first; then ``right`` of each, before a token that was never there."""
    lookup = Guesses(8, Lookup())
    text = list(range(10)) * 2
    for _ in range(4):
        text += (guess := lookup.guess(text, 99))
        lookup.learn(len(text), len(guess), len(guess))
    new, steps, length = 100, 0.0, len(text)
    while len(text) < length + 256:
        guess = lookup.guess(text, 99)
        taken = min(right, len(guess))
        text += guess[:taken]
        steps += 1 + 0.5 * len(guess)  # what a step costs, without guesses 1
        text.append(new if guess else (text[-1] + 1) % 10)
        new += bool(guess)
        if guess:
            lookup.learn(len(text), len(guess), taken)
    assert steps <= 256 / 0.97


@pytest.fixture(scope="module")
def plain() -> Any:
    with Runner(tiny_gguf(), device="cpu", threads=1, lookup=0) as lfm:
        yield lfm


@pytest.fixture(scope="module")
def guessing() -> Any:
    with Runner(tiny_gguf(), device="cpu", threads=1) as lfm:
        yield lfm


def drawn(reply: Reply) -> tuple[Any, ...]:
    return reply.text, reply.finish_reason, [entry.token for entry in reply.logprobs or ()]


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 120},
        {"max_tokens": 7},
        {"max_tokens": 60, "logprobs": 2},
        {"max_tokens": 60, "stop": ["self.d"]},
        {"max_tokens": 60, "grammar": literally(LIST)},
        {"max_tokens": 60, "repeat_penalty": 1.1},
    ],
    ids=str,
)
def test_answers_are_the_same(plain: Runner, guessing: Runner, options: dict[str, Any]) -> None:
    options = {**GREEDY, "logit_bias": endless(plain), **options}
    for prompt in (LIST, f"{LIST}\n{LIST[:90]}", "1 2 3 4 5 6 7 8 " * 8):
        wanted = plain.complete(prompt, **options)
        assert drawn(guessing.complete(prompt, **options)) == drawn(wanted)
        assert wanted.usage.guessed_tokens == 0


def test_a_quotation_with_one_change_goes_on_behind_it() -> None:
    lookup = Lookup()
    text = [*range(20), 1, 2, 3, 50, 51, 1, 2, 3, 4]  # the last 1, 2, 3 goes on with 50
    assert lookup.guess(text, 4) == [5, 6, 7, 8]
    text += [5, 99, 7, 8, 9]
    assert lookup.guess(text, 4) == [10, 11, 12, 13]


def test_what_repeats_takes_fewer_steps(guessing: Runner) -> None:
    options = {**GREEDY, "max_tokens": 120, "logit_bias": endless(guessing)}
    usage = guessing.complete("a b c d e f g " * 20, **options).usage
    assert usage.guessed_right > usage.completion_tokens / 2
    assert usage.guessed_right <= usage.guessed_tokens


def test_a_file_with_one_change_takes_fewer_steps(guessing: Runner) -> None:
    """What `bench` measures as "edit", the answer dictated as a model gives it that can copy."""
    messages = workload("edit").messages(0)
    code = messages[1]["content"].partition("\n\n")[2].replace("of_gauge", "from_gauge")
    answer = guessing.tokens.encode(code, bos=False)[:250]  # as much as has room
    with dictated(answer):
        reply = guessing.chat(messages, **GREEDY, max_tokens=len(answer), ignore_eos=True)
    assert code.startswith(reply.text)
    usage = reply.usage
    assert usage.completion_tokens >= 1.5 * (usage.completion_tokens - usage.guessed_right)


def test_the_context_ends_an_answer_at_the_same_place(plain: Runner) -> None:
    replies = []
    for lookup in (0, 8):
        with fresh(context=96, lookup=lookup) as lfm:
            replies.append(lfm.complete("1 2 3 " * 12, **GREEDY, logit_bias=endless(lfm)))
    assert replies[0].finish_reason == "context"
    assert drawn(replies[0]) == drawn(replies[1])


def test_turns_and_neighbours_are_undisturbed(plain: Runner, guessing: Runner) -> None:
    """Guesses come and go as requests do; what is shared or continued is what was kept."""
    options = {**GREEDY, "logit_bias": endless(plain)}
    prompts = [f"{LIST}\n{LIST[: 40 + 9 * i]}" for i in range(6)]
    wanted = [
        plain.complete(prompt, max_tokens=20 + 15 * i, **options).text
        for i, prompt in enumerate(prompts)
    ]

    def ask(i: int) -> str:
        return guessing.complete(prompts[i], max_tokens=20 + 15 * i, **options).text

    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            assert list(pool.map(ask, range(6))) == wanted
    longer = f"{prompts[5]}{wanted[5]}\n{LIST}"
    assert (
        guessing.complete(longer, max_tokens=40, **options).text
        == plain.complete(longer, max_tokens=40, **options).text
    )


def test_a_sequence_that_was_rolled_back_can_be_copied_and_cut() -> None:
    tokens = list(range(40, 80))
    with (
        Model(tiny_gguf()) as model,
        Context(model, n_ctx=256, n_seq_max=3, n_outputs=8, rollback=8, unified=True) as ctx,
    ):

        def last(seq: int, start: int, tokens: list[int]) -> np.ndarray:
            ctx.decode([Chunk(seq, start, tokens, 1)])
            return ctx.logits()[0].copy()

        wanted = last(2, 0, [*tokens[:34], 9])
        ctx.decode([Chunk(0, 0, tokens[:32]), Chunk(1, 0, [5])])
        ctx.decode([Chunk(0, 32, tokens[32:40], 8)])
        ctx.roll_back(0, 34)
        ctx.remove(1)
        ctx.copy(0, 1)  # while llama.cpp only notes which state applies
        assert np.allclose(last(1, 34, [9]), wanted, atol=0.01)
        assert np.allclose(last(0, 34, [9]), wanted, atol=0.01)
        ctx.decode([Chunk(0, 35, [1, 2, 3, 4])])
        ctx.roll_back(0, 37)
        state = ctx.save_state(0)
        ctx.remove(1)
        ctx.load_state(1, state)
        assert np.allclose(last(1, 37, [9]), last(0, 37, [9]), atol=0.01)
        with pytest.raises(RuntimeFailureError, match="cannot go back"):
            ctx.roll_back(0, 12)


def test_what_is_out_of_range() -> None:
    with pytest.raises(OptionError, match="lookup is 65: it must be 0"):
        fresh(lookup=65)
    with fresh(context=8, lookup=64) as lfm:  # as far as such a context allows
        assert lfm.complete("1", **GREEDY).usage.completion_tokens > 0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model, disturbed: it guesses right now and then."""
    weights = GGUFFile.open(tiny_gguf())
    path = tmp_path_factory.mktemp("draft") / "draft.gguf"
    path.write_bytes(weights.path.read_bytes())
    info = weights.tensors["blk.2.ffn_down.weight"]
    data = np.memmap(path, np.float32, "r+", info.offset, (info.nbytes // 4,))
    data[:] = -data
    data.flush()
    return path


def test_a_draft_guesses_and_changes_nothing(plain: Runner, other: Path) -> None:
    options = {**GREEDY, "logit_bias": endless(plain), "max_tokens": 50}
    prompts = ["What is a list?", "Tell me about rivers.", f"{LIST}\n", "What is a list? " * 40]
    wanted = [plain.complete(prompt, **options).text for prompt in prompts]
    shares = []
    for draft in (tiny_gguf(), other):
        with fresh(draft=draft, lookup=0) as lfm:
            replies = [lfm.complete(prompt, **options) for prompt in prompts]
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(lambda p: lfm.complete(p, **options).text, prompts)) == wanted
        assert [reply.text for reply in replies] == wanted
        guessed = sum(reply.usage.guessed_tokens for reply in replies)
        shares.append(sum(reply.usage.guessed_right for reply in replies) / guessed)
    assert shares[0] > 0.8  # it would rather end where the bias forbids that
    assert 0 < shares[1] < shares[0]


def test_a_draft_of_another_vocabulary(adapted: dict[str, Path]) -> None:
    with pytest.raises(GGUFError, match="its vocabulary is not that of"):
        fresh(draft=adapted["base"])
