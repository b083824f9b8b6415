"""Many requests at once: threads, tasks, cancelling, the queue."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.runner import Reply, Runner
from tests.making.runners import GREEDY, QUESTIONS, endless, fresh, literally, wait_until


def assert_as_alone(alone: Reply, other: Reply) -> None:
    """A request follows its lone answer, or leaves it where the two best logits nearly equal.

    Greedy, with ``logprobs=2``. Batched matrix products sum in another order, so equal logits
    may swap: allowed is a step where the lone run's two best are within 0.05.
    """
    assert alone.logprobs is not None
    assert other.logprobs is not None
    for one, two in zip(alone.logprobs, other.logprobs, strict=False):
        if one.token != two.token:
            assert one.top[0][1] - one.top[1][1] < 0.05
            return
        assert abs(one.logprob - two.logprob) < 0.05
    assert len(alone.logprobs) == len(other.logprobs)


def test_together_each_gets_what_it_gets_alone() -> None:
    options = {**GREEDY, "max_tokens": 24, "logprobs": 2}
    with fresh(parallel=4, state_bytes=0) as lfm:
        alone = [lfm.chat(question, **options) for question in QUESTIONS]
        for one, other in zip(alone, lfm.batch(QUESTIONS, **options), strict=True):
            assert_as_alone(one, other)


def test_threads_and_tasks_share_the_runner(lfm: Runner) -> None:
    options = {**GREEDY, "max_tokens": 12, "logprobs": 2}
    alone = [lfm.chat(question, **options) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        for one, other in zip(
            alone, pool.map(lambda q: lfm.chat(q, **options), QUESTIONS), strict=True
        ):
            assert_as_alone(one, other)

    async def main() -> list[Reply]:
        return await asyncio.gather(*(lfm.achat(q, **options) for q in QUESTIONS))

    for one, other in zip(alone, asyncio.run(main()), strict=True):
        assert_as_alone(one, other)


def test_async_streams_and_cancelled_tasks(lfm: Runner) -> None:
    async def main() -> None:
        stream = lfm.astream("Hi", max_tokens=5, logit_bias=endless(lfm))
        text = "".join([str(piece) async for piece in stream])
        assert text.startswith(stream.reply.text)
        task = asyncio.create_task(lfm.achat("Hi", logit_bias=endless(lfm)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: not lfm.scheduler.queue.running)


async def _times_out(lfm: Runner) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(lfm.achat("Hi", logit_bias=endless(lfm)), 0.05)


async def _is_abandoned(lfm: Runner) -> None:
    async for _ in lfm.astream("Hi", logit_bias=endless(lfm)):
        break


async def _is_never_read(lfm: Runner) -> None:
    lfm.astream("Hi", logit_bias=endless(lfm))


async def _is_pending_at_the_end(lfm: Runner) -> None:
    asyncio.create_task(lfm.achat("Hi", logit_bias=endless(lfm)))  # noqa: RUF006
    await asyncio.sleep(0.05)


async def _are_cancelled_among_others(lfm: Runner) -> None:
    kept = [asyncio.create_task(lfm.achat("Hi", max_tokens=5, **GREEDY)) for _ in range(20)]
    gone = [asyncio.create_task(lfm.achat("Hi", logit_bias=endless(lfm))) for _ in range(20)]
    await asyncio.sleep(0.05)
    for task in gone:
        task.cancel()
    assert len({reply.text for reply in await asyncio.gather(*kept)}) == 1
    cancelled = await asyncio.gather(*gone, return_exceptions=True)
    assert {type(error) for error in cancelled} == {asyncio.CancelledError}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "task",
    [
        _times_out,
        _is_abandoned,
        _is_never_read,
        _is_pending_at_the_end,
        _are_cancelled_among_others,
    ],
)
def test_what_a_task_leaves_behind_ends(
    task: Callable[[Runner], Coroutine[Any, Any, None]], lfm: Runner
) -> None:
    before = lfm.chat("Hi", max_tokens=8, **GREEDY).text
    threads = threading.active_count()
    asyncio.run(task(lfm))
    wait_until(lambda: not lfm.load.running and not lfm.load.waiting)
    assert threading.active_count() == threads
    assert lfm.chat("Hi", max_tokens=8, **GREEDY).text == before


def test_cancelling_from_another_thread() -> None:
    with fresh(context=8192) as lfm:
        stream = lfm.stream("Hi", logit_bias=endless(lfm))
        for n, _ in enumerate(stream):
            if n == 3:
                threading.Thread(target=stream.cancel).start()
        assert stream.reply.finish_reason == "cancelled"
        assert stream.reply.usage.completion_tokens < 8000


def test_leaving_a_stream_early_cancels_it(lfm: Runner) -> None:
    for _ in lfm.stream("Hi", logit_bias=endless(lfm)):
        break
    gc.collect()
    wait_until(lambda: not lfm.scheduler.queue.running)


def test_a_long_prompt_does_not_stall_who_decodes() -> None:
    """While a long prompt is read, the other request goes on: a token in every step."""
    with fresh(parallel=2, context=1024) as lfm:
        lfm.scheduler.queue.speed = 1000.0  # as if measured; pieces of 250 tokens at most
        events: list[str] = []

        def read_a_long_one() -> None:
            lfm.chat("worm cell gene " * 100, max_tokens=1)
            events.append("first")

        stream = lfm.stream("Hi", max_tokens=60, logit_bias=endless(lfm), **GREEDY)
        for n, _ in enumerate(stream):
            events.append("token")
            if n == 2:
                long = threading.Thread(target=read_a_long_one)
                long.start()
        long.join()
        at = next(i for i, event in enumerate(events) if event == "first")
        assert events[3:at].count("token") >= 2


def test_who_came_first_is_served_first_and_the_queue_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lfm2gguf.runner.engine.scheduler.MAX_WAITING", 6)
    with fresh(parallel=1, context=512) as lfm:
        order: list[int] = []
        streams = [lfm.stream(f"{i}?", max_tokens=1 + i % 3) for i in range(7)]

        def wait(i: int) -> None:
            streams[i].wait()
            order.append(i)

        with lfm.scheduler.together():
            for stream in streams[:6]:
                stream.start()
            with pytest.raises(RuntimeFailureError, match="6 requests wait"):
                streams[6].start()
        waiting = [threading.Thread(target=wait, args=(i,)) for i in range(6)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        began = [stream.reply.usage.waited for stream in streams[:6]]
    assert sorted(order) == list(range(6))
    assert began == sorted(began)


@pytest.mark.slow
def test_two_hundred_requests_in_any_order() -> None:
    """Random lengths, options and cancellations: nothing lost, nothing mixed, memory flat."""
    draw = random.Random(0)
    with fresh(parallel=4, context=512, state_bytes=2 << 20) as lfm:
        outcomes: dict[int, str] = {}

        def ask(i: int) -> None:
            text = f"number {i} " + "worm " * draw.randrange(60)
            say = f"I am number {i}." + " x" * draw.randrange(12)
            stream = lfm.stream(text, grammar=literally(say), max_tokens=64)
            leave = draw.random() < 0.2
            out = ""
            for piece in stream:
                out += piece.text
                if leave and len(out) > 8:
                    stream.cancel()
            finished = stream.reply.finish_reason
            assert say.startswith(out)
            assert finished == "cancelled" or out == say[: len(out)] != ""
            outcomes[i] = finished

        def round_of(numbers: list[int]) -> None:
            workers = [threading.Thread(target=ask, args=(i,)) for i in numbers]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        numbers = list(range(200))
        draw.shuffle(numbers)
        round_of(numbers[:100])
        before = resident()
        round_of(numbers[100:])
        grown = resident() - before
        assert len(outcomes) == 200
        assert set(outcomes.values()) <= {"stop", "length", "cancelled"}
        assert lfm.memory.state_bytes <= lfm.memory.state_bytes_limit + 4 * 8 * 20_000
        assert grown < 32 << 20
        assert not lfm.scheduler.samplers


def resident() -> int:
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_bias_beyond_every_logit_decides(lfm: Runner) -> None:
    token = lfm.tokens.encode("a", bos=False)[0]
    for bias in (1e9, 1e66, 1.7e308):
        reply = lfm.complete("Hi", logit_bias={token: bias, token + 1: -bias}, max_tokens=3)
        assert reply.text == lfm.tokens.bytes_of(token).decode() * 3
