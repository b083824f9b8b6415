"""Many requests, one context: continuous batching over llama.cpp's sequences.

One thread owns the context. At each step every running request contributes what it lacks: a
piece of its prompt, or the token it drew last. All of it is one ``llama_decode``. Requests join
and leave between steps; the one that has waited longest is served first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lfm2gguf.errors import ContextError, Lfm2ggufError, RuntimeFailureError
from lfm2gguf.llamacpp import Adapter, Chunk, Context, Floats, Model, RefusedBatchError, Sampler
from lfm2gguf.runner.engine.guesses import Guesses
from lfm2gguf.runner.engine.jobs import Jobs
from lfm2gguf.runner.engine.memory import Memory, MemoryUse
from lfm2gguf.runner.engine.queue import SMALLEST_PIECE, Queue, Work
from lfm2gguf.runner.engine.request import Delta, Event, Finished, Load, Request, logprobs_of

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000

Result = TypeVar("Result")


class Scheduler:
    """The thread that owns a context, and the requests it serves."""

    def __init__(
        self,
        model: Model,
        context: Context,
        *,
        state_bytes: int,
        visible: frozenset[int],
        adapters: Mapping[str, Adapter],
        guesses: Callable[[], Guesses] | None,
        release: Callable[[], None],
    ) -> None:
        self._model, self._context = model, context
        self._memory = Memory(context, state_bytes)
        self._guesses = guesses  # makes those of a request
        self._release = release  # frees the context, the model, and what else was made of it
        self._visible = visible  # control tokens that belong into the text, as call markers do
        self._pieces: dict[int, bytes | None] = {}
        self.samplers: dict[Request, Sampler] = {}
        self._tokens: Counter[str] = Counter()  # since the beginning, changed by the thread alone
        self._jobs = Jobs()
        self._closing = False
        self._wake = threading.Condition()  # on a lock its owner may take again
        self.queue = Queue(context, self._memory, adapters, self._wake)
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="lfm2gguf", daemon=True)
        self.thread.start()

    # called by any thread

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Hold the scheduler back while several requests are submitted."""
        with self._wake:
            yield

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ContextError: the prompt does not fit into the context.
            OptionError: the prompt is empty, or an option is not valid.
            RuntimeFailureError: the runner is closed, or the process has forked.
        """
        self.check_usable()
        self.queue.check(request)
        if self._guesses:
            request.guesses, request.n_ctx = self._guesses(), self._context.n_ctx
        sampler = Sampler(self._model, request.options, request.calls)
        with self._wake:
            if self._closing or len(self.queue.waiting) >= MAX_WAITING:
                sampler.close()
                raise RuntimeFailureError(
                    "the runner is closed"
                    if self._closing
                    else f"{MAX_WAITING} requests wait already: try again later"
                )
            self.samplers[request] = sampler
            self.queue.waiting.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Ask for a request to end; it does at the next step."""
        request.cancelled = True
        with self._wake:
            self._wake.notify()

    def call(self, work: Callable[[], Result]) -> Result:
        """Compute something else in the scheduler's thread, between two steps, and wait for it.

        An OpenMP build of llama.cpp keeps a team of threads for every thread that ever computed;
        more teams than cores, and all of them sleep at every barrier (libgomp,
        ``gomp_throttled_spin_count``). So whatever computes beside the requests does it here.
        """
        with self._wake:
            self.check_usable()
            future = self._jobs.add(work)
            self._wake.notify()
        return future.result()

    def check_usable(self) -> None:
        """Check that requests can be taken.

        Raises:
            RuntimeFailureError: the runner is closed, or the process has forked.
        """
        if os.getpid() != self._pid:
            raise RuntimeFailureError(
                "this runner was opened before the process forked, and the library's threads "
                "stayed behind: open a new one in the child"
            )
        if self._closing:
            raise RuntimeFailureError("the runner is closed")

    @property
    def memory_use(self) -> MemoryUse:
        """Bytes and tokens held for later turns."""
        return self._memory.use

    @property
    def load(self) -> Load:
        """Requests at hand, and tokens so far."""
        with self._wake:
            running, waiting = len(self.queue.running), len(self.queue.waiting)
        tokens = self._tokens
        return Load(running, waiting, tokens["prefilled"], tokens["cached"], tokens["generated"])

    def close(self) -> None:
        """End the thread and free the context; requests under way fail. Safe to call twice."""
        if os.getpid() != self._pid:
            return  # the parent's
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self.thread is not threading.current_thread():
            self.thread.join()
            self._release()

    # the thread

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Ctrl-C must wake the main thread, not this one or the workers that inherit its mask
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while self._wait_for_work():
            if self._jobs:
                with self._wake:
                    job = self._jobs.take()
                job()  # one, so that requests never wait for more
            self._try_step()
        closed = RuntimeFailureError("the runner was closed")
        for request in self.queue:
            self._end(request, closed)
        self._jobs.fail(closed)

    def _try_step(self) -> None:
        try:
            self._step()
        except Lfm2ggufError as error:
            self._fail_running(error)
        except Exception as error:
            logger.exception("a step failed")
            self._fail_running(RuntimeFailureError(f"the runner failed: {error!r}"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._closing or self.queue.running or self.queue.waiting or self._jobs):
                self._wake.wait()
            return not self._closing

    def _fail_running(self, error: Lfm2ggufError) -> None:
        """Give up what runs, since no sequence's state is known any more; keep what waits."""
        for request in list(self.queue.running):
            self._end(request, error)
        self._memory.clear()

    def _step(self) -> None:
        for request in self.queue.cancelled():
            self._end(request, Finished("cancelled", request.usage()))
        if self.queue.waiting:
            for request in self.queue.admit():
                self._alone(request, self._begin)
        for work in self.queue.batches():
            if not self._advance(work):
                return

    def _begin(self, request: Request) -> None:
        if request.started or request.slot is None:
            return  # it had to give way, and goes on
        request.started = time.perf_counter()
        request.cached = len(request.slot.tokens)
        self._tokens["cached"] += request.cached
        self.samplers[request].see(request.penalty_window)

    def _advance(self, work: Work) -> bool:
        """Decode the chunks together; False if one of their requests had to give way."""
        began = time.perf_counter()
        try:
            if not self._decode([chunk for _, chunk in work]):
                return False
        except RefusedBatchError as error:
            if len(work) > 1:  # one of them is to blame: each on its own shows which
                return all(self._advance([item]) for item in work)
            self._end(work[0][0], error)
            return True
        self._note(work, time.perf_counter() - began)
        at = 0
        for request, chunk in work:
            if chunk.outputs:
                logits = self._context.logits_of_outputs()[at : at + chunk.outputs]
                self._alone(request, self._draw_all, chunk, logits)
                at += chunk.outputs
        return True

    def _alone(self, request: Request, work: Callable[..., None], *arguments: Any) -> None:
        """Do what concerns one request, which alone ends if that fails."""
        try:
            work(request, *arguments)
        except Exception as error:
            if request not in self.samplers:  # it had ended already
                raise
            if not isinstance(error, Lfm2ggufError):
                logger.exception("a request failed")
                error = RuntimeFailureError(f"the runner failed: {error!r}")
            self._end(request, error)

    def _decode(self, chunks: Sequence[Chunk]) -> bool:
        """Decode, making room if there is none: idle sequences go first, then the youngest."""
        while True:
            try:
                self._context.decode(chunks)
            except ContextError:
                if self._memory.evict():
                    continue
                self._give_way()
                return False
            return True

    def _give_way(self) -> None:
        """Send the youngest request back to the queue, or end the only one."""
        if len(self.queue.running) == 1:
            self._finish(self.queue.running[0], "context")
        else:
            self.queue.send_back()

    def _note(self, work: Work, seconds: float) -> None:
        """Book what the step has put into memory."""
        prompt_tokens = 0
        for request, chunk in work:
            assert request.slot is not None
            decoding = request.decoding
            request.slot.tokens += chunk.tokens
            if decoding:
                continue
            prompt_tokens += len(chunk.tokens)
            request.prefilled += len(chunk.tokens)
            if len(request.slot.tokens) in request.marks:
                self._memory.mark(request.slot)
        self._tokens["prefilled"] += prompt_tokens
        if prompt_tokens >= SMALLEST_PIECE:
            self.queue.speed = prompt_tokens / seconds

    def _draw_all(self, request: Request, chunk: Chunk, logits: Sequence[Floats]) -> None:
        """Draw a token, and on, as long as a guess is what was drawn."""
        if request.unscored:
            request.score(chunk.start, logits, self._special_piece)
            if request.unscored:
                return
            self._emit(request, Delta("", (), tuple(request.scored)))
            logits = logits[-1:]
        if request.options.max_tokens == 0:
            self._finish(request, "length")
            return
        slot, guesses = request.slot, chunk.tokens[len(chunk.tokens) - len(logits) + 1 :]
        assert slot is not None
        right = 0
        for guess, row in zip([*guesses, None], logits, strict=True):
            token = self._draw(request, row)
            if request not in self.samplers or token != guess:
                break
            right += 1
        if right < len(guesses):
            held = len(slot.tokens) - len(guesses) + right
            self._context.roll_back(slot.seq, held)
            slot.cut(held)
        if guesses:
            request.learn(len(guesses), right)

    def _draw(self, request: Request, logits: Floats) -> int:
        """Draw a token and emit its text; end the answer where it is the last."""
        token: int = self.samplers[request].sample(logits)
        if not request.generated:
            request.first_token = time.perf_counter()
        self._tokens["generated"] += 1
        request.generated.append(token)
        request.tokens.append(token)
        piece, count = self._piece(token), request.options.logprobs
        if piece is None or token in request.options.stop_tokens:
            if count is not None and request.options.prompt_logprobs is not None:
                last = logprobs_of(logits, token, self._special_piece(token), count)
                self._emit(request, Delta("", (last,)))
            self._finish(request, "stop")
            return token
        logprobs = () if count is None else (logprobs_of(logits, token, piece, count),)
        text = request.text.feed(piece)
        if text or logprobs:
            self._emit(request, Delta(text, logprobs))
        if request.text.stopped is not None:
            self._finish(request, "stop")
        elif len(request.generated) == request.options.max_tokens:
            self._finish(request, "length")
        elif len(request.tokens) >= self._context.n_ctx:
            self._finish(request, "context")
        return token

    def _piece(self, token: int) -> bytes | None:
        """Return the bytes of a token, None of one that ends an answer."""
        if token not in self._pieces:
            ends, shown = self._model.ends_generation(token), token in self._visible
            self._pieces[token] = None if ends else self._model.piece(token, special=shown)
        return self._pieces[token]

    def _special_piece(self, token: int) -> bytes:
        return self._model.piece(token, special=True)

    def _finish(self, request: Request, reason: str) -> None:
        rest = request.text.finish()
        if rest:
            self._emit(request, Delta(rest))
        self._end(request, Finished(reason, request.usage()))

    def _end(self, request: Request, event: Event) -> None:
        self.queue.remove(request)
        self.samplers.pop(request).close()
        self._emit(request, event)

    def _emit(self, request: Request, event: Event) -> None:
        try:
            request.emit(event)
        except Exception:  # such as an event loop that is closed: nobody listens any more
            logger.debug("a request lost its listener", exc_info=True)
            request.cancelled = True
