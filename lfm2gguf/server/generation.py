"""The answers of one HTTP request: until they are whole, the client leaves, or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request

from lfm2gguf.runner import Piece, Reply, Stream
from lfm2gguf.server.errors import HUNG_UP, Refusal
from lfm2gguf.server.service import Service

Event = Piece | Reply
_Item = tuple[int, Event | Exception]


class Generation:
    """Reads streams of the runner for one request, and gives them up when nobody waits.

    Cutting short means to cancel the streams: each then ends by itself, at the next step, with
    what it has cost.
    """

    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self._streams: Sequence[Stream] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._admitted = 0
        self._cut_short: Refusal | None = None

    def admit(self, count: int) -> None:
        """Ask for room for so many answers, before anything is computed for them."""
        self._service.admit(count)
        self._admitted += count

    async def replies(self, streams: Sequence[Stream]) -> list[Reply]:
        """Return the whole answers."""
        whole = [asyncio.create_task(stream.wait_async()) for stream in streams]
        self._watch(streams)  # behind the tasks: they have begun when there is reason to cut
        replies = await asyncio.gather(*whole)
        for reply in replies:
            self._note(reply)
        return replies

    async def events(self, streams: Sequence[Stream]) -> AsyncIterator[tuple[int, Event]]:
        """Return what comes of the streams, with the stream's index, once there is something.

        What is wrong before the first token is raised here, before the response has a status.
        """
        items: asyncio.Queue[_Item] = asyncio.Queue()
        self._tasks += [
            asyncio.create_task(_feed(items, index, stream)) for index, stream in enumerate(streams)
        ]
        self._watch(streams)
        first = self._sound(await items.get())
        return self._events(first, items, len(streams))

    async def _events(
        self, item: tuple[int, Event], items: asyncio.Queue[_Item], unfinished: int
    ) -> AsyncIterator[tuple[int, Event]]:
        while True:
            yield item
            unfinished -= isinstance(item[1], Reply)
            if not unfinished:
                return
            item = self._sound(await items.get())

    def _sound(self, item: _Item) -> tuple[int, Event]:
        index, event = item
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Reply):
            self._note(event)
        return index, event

    def _note(self, reply: Reply) -> None:
        self._service.metrics.observe(reply.usage)
        if reply.finish_reason == "cancelled" and self._cut_short:
            raise self._cut_short

    def _watch(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        seconds = self._service.limits.seconds
        late = Refusal(504, f"the answer was not whole within {seconds:g} s", code="timeout")
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cut, late)
        self._tasks.append(asyncio.create_task(self._until_gone()))

    async def _until_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._cut(Refusal(HUNG_UP, "the client hung up"))

    def _cut(self, reason: Refusal) -> None:
        self._cut_short = self._cut_short or reason
        for stream in self._streams:
            stream.cancel()

    def close(self) -> None:
        """Give up what is not whole, and make room."""
        if self._timer:
            self._timer.cancel()
        for stream in self._streams:
            stream.close()
        for task in self._tasks:
            task.cancel()
        self._service.release(self._admitted)


async def _feed(items: asyncio.Queue[_Item], index: int, stream: Stream) -> None:
    try:
        async for piece in stream:
            items.put_nowait((index, piece))
        items.put_nowait((index, stream.reply))
    except Exception as error:
        items.put_nowait((index, error))
