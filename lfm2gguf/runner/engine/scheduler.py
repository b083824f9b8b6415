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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from lfm2gguf.errors import ContextError, Lfm2ggufError, OptionError, RuntimeFailureError
from lfm2gguf.llamacpp import Adapter, Chunk, Context, Floats, Model, Sampler
from lfm2gguf.runner.engine.memory import Memory, MemoryUse, Variant
from lfm2gguf.runner.engine.request import Delta, Event, Finished, Load, Request, TokenLogprob

logger = logging.getLogger(__name__)

STALL = 0.4  # seconds that a piece of a prompt may hold up requests that are decoding
SMALLEST_PIECE = 64  # tokens; below this the matrix products lose their efficiency
MAX_WAITING = 10_000
TURN = 32  # steps that the requests of one adapter have before another's

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
        release: Callable[[], None],
    ) -> None:
        self._model, self._context = model, context
        self._memory = Memory(context, state_bytes)
        self._release = release  # frees the context, the model, and what else was made of it
        self._adapters = adapters
        self._variant: Variant = None  # the adapter that is applied
        self._turn = 0  # steps it has been
        self._visible = visible  # control tokens that belong into the text, as call markers do
        self._pieces: dict[int, bytes] = {}
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []  # changed by the thread alone, oldest first
        self._samplers: dict[Request, Sampler] = {}
        self._speed = 0.0  # tokens of prompts per second, as last measured
        self._finished = 0
        self._tokens: Counter[str] = Counter()  # since the beginning, changed by the thread alone
        self._resume_after = 0  # a request that had to give way waits for another to finish
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closing = False
        self._wake = threading.Condition()  # on a lock its owner may take again
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="lfm2gguf", daemon=True)
        self._thread.start()

    # called by any thread

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Hold the scheduler back while several requests are submitted."""
        with self._wake:
            yield

    def submit(self, request: Request) -> None:
        """Queue a request. Raises :class:`RuntimeFailureError` when closed, or after a fork."""
        self.check_usable()
        if len(request.prompt) >= self._context.n_ctx:
            raise ContextError(
                f"the prompt has {len(request.prompt)} tokens, the context {self._context.n_ctx}: "
                "shorten it or open the model with a larger context; of a conversation, "
                "overflow='drop' in Python leaves out the oldest turns"
            )
        if not request.prompt:
            raise OptionError("the prompt is empty")
        if request.variant and request.variant[0] not in self._adapters:
            known = ", ".join(self._adapters) or "none: give adapters={name: file} to the Runner"
            raise OptionError(f"there is no adapter {request.variant[0]!r}; there are {known}")
        sampler = Sampler(self._model, request.options)
        with self._wake:
            if self._closing or len(self._waiting) >= MAX_WAITING:
                sampler.close()
                raise RuntimeFailureError(
                    "the runner is closed" if self._closing else f"{MAX_WAITING} requests wait"
                )
            self._samplers[request] = sampler
            self._waiting.append(request)
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
        future: Future[Result] = Future()
        with self._wake:
            self.check_usable()
            self._jobs.append((future, work))
            self._wake.notify()
        return future.result()

    def check_usable(self) -> None:
        """Raise :class:`RuntimeFailureError` when closed, or in a forked process."""
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
            running, waiting = len(self._running), len(self._waiting)
        tokens = self._tokens
        return Load(running, waiting, tokens["prefilled"], tokens["cached"], tokens["generated"])

    def close(self) -> None:
        """End the thread and free the context; requests under way fail. Safe to call twice."""
        if os.getpid() != self._pid:
            return  # the parent's
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()
            self._release()

    # the thread

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Ctrl-C must wake the main thread, not this one or the workers that inherit its mask
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while self._wait_for_work():
            self._do_job()
            self._try_step()
        closed = RuntimeFailureError("the runner was closed")
        for request in self._all():
            self._end(request, closed)
        for future, _ in self._jobs:
            future.set_exception(closed)

    def _do_job(self) -> None:
        """Do one thing that is not a request, so that requests never wait for more than one."""
        with self._wake:
            future, work = self._jobs.popleft() if self._jobs else (None, None)
        if future is None or work is None or not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # whoever waits shall have it
            future.set_exception(error)

    def _all(self) -> list[Request]:
        with self._wake:
            return [*self._running, *self._waiting]

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
            while not (self._closing or self._running or self._waiting or self._jobs):
                self._wake.wait()
            return not self._closing

    def _fail_running(self, error: Lfm2ggufError) -> None:
        """The state of every sequence is unknown: give up what runs, keep what waits."""
        for request in list(self._running):
            self._end(request, error)
        self._memory.clear()

    def _step(self) -> None:
        self._drop_cancelled()
        self._admit()
        for work in _batches(self._plan()):
            if not self._advance(work):
                return

    def _advance(self, work: list[tuple[Request, Chunk]]) -> bool:
        """Decode the chunks together; False if one of their requests had to give way."""
        began = time.perf_counter()
        if not self._decode([chunk for _, chunk in work]):
            return False
        self._note(work, time.perf_counter() - began)
        rows = iter(self._context.logits()) if any(chunk.outputs for _, chunk in work) else iter(())
        for request, chunk in work:
            if chunk.outputs:
                self._draw(request, next(rows))
        return True

    def _drop_cancelled(self) -> None:
        for request in self._all():
            if request.cancelled:
                self._end(request, Finished("cancelled", request.usage()))

    def _admit(self) -> None:
        """Give free slots to those who waited longest, as far as the context has room."""
        while self._waiting and self._memory.idle and self._has_room(self._waiting[0]):
            request = self._waiting[0]
            request.slot = self._memory.take(request.tokens, request.variant)
            with self._wake:
                self._waiting.remove(request)
                self._running.append(request)
            if not request.started:
                request.started = time.perf_counter()
                request.cached = len(request.slot.tokens)
                self._tokens["cached"] += request.cached
                self._samplers[request].see(request.penalty_window)

    def _has_room(self, request: Request) -> bool:
        """Judge by what runs; sequences that only remember give way when it is needed."""
        if not self._running:
            return True
        if request.generated and self._finished < self._resume_after:
            return False
        needed = sum(len(r.tokens) for r in self._running) + len(request.tokens)
        return needed + SMALLEST_PIECE * (len(self._running) + 1) <= self._context.n_ctx

    def _plan(self) -> list[tuple[Request, Chunk]]:
        """Who decodes how much in this step.

        All single tokens. Of prompts, a piece of the oldest where others are decoding; else
        equal pieces of all, which go through the model together: a ubatch of a hybrid model
        holds as many tokens of one sequence as of another (llama.cpp,
        ``llama_batch_allocr::split_equal``).
        """
        turn = self._take_turn()
        decoding = [request for request in turn if request.decoding]
        prefilling = [request for request in turn if not request.decoding]
        budget = self._budget(busy=bool(decoding))
        work = [(request, self._chunk(request, 1)) for request in decoding]
        share = budget if decoding else max(SMALLEST_PIECE, budget // max(1, len(prefilling)))
        for request in prefilling:
            if budget <= 0:
                break
            work.append((request, self._chunk(request, min(budget, share))))
            budget -= len(work[-1][1].tokens)
        return work

    def _take_turn(self) -> list[Request]:
        """The running requests of one adapter, by turns: it is applied to a whole batch."""
        variants = list(dict.fromkeys(request.variant for request in self._running))
        if len(variants) > 1 and self._turn >= TURN and self._variant in variants:
            following = variants[(variants.index(self._variant) + 1) % len(variants)]
        else:
            following = self._variant if self._variant in variants else next(iter(variants), None)
        if following != self._variant:
            name, scale = following or ("", 0.0)
            self._context.use(self._adapters.get(name), scale)
            self._variant, self._turn = following, 0
        self._turn += 1
        return [request for request in self._running if request.variant == following]

    def _budget(self, *, busy: bool) -> int:
        room = min(self._context.n_ubatch, self._context.n_batch - len(self._running))
        if not busy:
            return room
        return min(room, max(SMALLEST_PIECE, int(self._speed * STALL)))

    def _chunk(self, request: Request, budget: int) -> Chunk:
        assert request.slot is not None
        held = len(request.slot.tokens)
        stop = min(held + budget, len(request.tokens))
        stop = min([mark for mark in request.marks if held < mark < stop], default=stop)
        tokens, rows = request.stretch(held, stop)
        outputs = int(held + len(tokens) == len(request.tokens))
        return Chunk(request.slot.seq, held, tokens, outputs, rows)

    def _decode(self, chunks: list[Chunk]) -> bool:
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
        """Send the youngest request back to the queue; what it has is computed again later."""
        request = self._running[-1]
        if len(self._running) == 1:
            self._finish(request, "context")
            return
        assert request.slot is not None
        self._running.pop()
        self._memory.release(request.slot)
        self._memory.forget(request.slot)
        request.slot = None
        self._resume_after = self._finished + 1
        with self._wake:
            self._waiting.appendleft(request)

    def _note(self, work: list[tuple[Request, Chunk]], seconds: float) -> None:
        """Book what the step has put into memory."""
        prompt_tokens = 0
        for request, chunk in work:
            assert request.slot is not None
            if not request.decoding:
                prompt_tokens += len(chunk.tokens)
                request.prefilled += len(chunk.tokens)
            request.slot.tokens.extend(chunk.tokens)
            if len(request.slot.tokens) in request.marks:
                self._memory.mark(request.slot)
        self._tokens["prefilled"] += prompt_tokens
        if prompt_tokens >= SMALLEST_PIECE:
            self._speed = prompt_tokens / seconds

    def _draw(self, request: Request, logits: Floats) -> None:
        try:
            token: int = self._samplers[request].sample(logits)
        except Lfm2ggufError as error:
            self._end(request, error)
            return
        if not request.generated:
            request.first_token = time.perf_counter()
        self._tokens["generated"] += 1
        request.generated.append(token)
        request.tokens.append(token)
        if self._model.ends_generation(token):
            self._finish(request, "stop")
            return
        logprobs = self._logprobs(request, token, logits)
        text = request.text.feed(self._piece(token))
        if text or logprobs:
            self._emit(request, Delta(text, logprobs))
        if request.text.stopped is not None:
            self._finish(request, "stop")
        elif len(request.generated) == request.options.max_tokens:
            self._finish(request, "length")
        elif len(request.tokens) >= self._context.n_ctx:
            self._finish(request, "context")

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._model.piece(token, special=token in self._visible)
        return self._pieces[token]

    def _logprobs(self, request: Request, token: int, logits: Floats) -> tuple[TokenLogprob, ...]:
        count = request.options.logprobs
        if count is None:
            return ()
        values = logits.astype(np.float64)
        values -= values.max()
        values -= np.log(np.exp(values).sum())
        best = np.argsort(-values, kind="stable")[:count]
        top = tuple((int(i), float(values[i])) for i in best)
        return (TokenLogprob(token, self._piece(token), float(values[token]), top),)

    def _finish(self, request: Request, reason: str) -> None:
        rest = request.text.finish()
        if rest:
            self._emit(request, Delta(rest))
        self._end(request, Finished(reason, request.usage()))

    def _end(self, request: Request, event: Event) -> None:
        with self._wake:
            (self._running if request in self._running else self._waiting).remove(request)
        if request.slot:
            self._memory.release(request.slot)
            request.slot = None
        self._finished += 1
        self._samplers.pop(request).close()
        self._emit(request, event)

    def _emit(self, request: Request, event: Event) -> None:
        try:
            request.emit(event)
        except Exception:  # such as an event loop that is closed: nobody listens any more
            logger.debug("a request lost its listener", exc_info=True)
            request.cancelled = True


def _batches(work: list[tuple[Request, Chunk]]) -> list[list[tuple[Request, Chunk]]]:
    """All tokens go together; embeddings, which llama.cpp does not mix with them, one by one."""
    tokens = [item for item in work if item[1].rows is None]
    return [*([tokens] if tokens else []), *([item] for item in work if item[1].rows is not None)]
