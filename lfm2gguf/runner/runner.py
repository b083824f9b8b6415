"""The Runner: a model file, opened for chat."""

from __future__ import annotations

import asyncio
import os
import queue
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import ContextError, DeviceError, Lfm2ggufError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Context, Device, Floats, Model
from lfm2gguf.runner import devices as device_choice
from lfm2gguf.runner.answer import THINK, THINK_END, Answer, Piece
from lfm2gguf.runner.calls import END, START, BadCall, ToolCall
from lfm2gguf.runner.embeddings import Embedder
from lfm2gguf.runner.memory import MemoryUse
from lfm2gguf.runner.options import OptionChanges, default_options
from lfm2gguf.runner.prompts import PromptTokens
from lfm2gguf.runner.scheduler import (
    Delta,
    Event,
    Finished,
    Request,
    Scheduler,
    TokenLogprob,
    Usage,
)
from lfm2gguf.runner.templates import Message, Messages, Template, as_messages
from lfm2gguf.runner.tools import Tool, ToolLike, as_tools

if TYPE_CHECKING:
    from typing_extensions import Unpack

TRAINED_CONTEXT = 32_768  # LFM2 and LFM2.5, model cards; the files say 128,000
LONGER_TRAINED = {("lfm2.5", "8b-a1b"): 131_072}
DEFAULT_CONTEXT = 8_192
ANSWER_ROOM = 512  # tokens kept free for an answer when old turns are dropped


@dataclass(frozen=True)
class Reply:
    """An answer.

    ``finish_reason`` is ``stop``, ``length`` (max_tokens), ``context`` (the context is full)
    or ``cancelled``. ``tool_calls`` are parsed and fit their schemas; what is not is in
    ``bad_calls``. ``message`` is the answer as the next request's history wants it.
    """

    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    bad_calls: tuple[BadCall, ...]
    finish_reason: str
    usage: Usage
    seed: int
    message: dict[str, Any]
    logprobs: tuple[TokenLogprob, ...] | None = None


class Stream:
    """An answer on its way: iterate over its pieces, then read :attr:`reply`.

    Iterate with ``for``, or ``async for`` where it came from :meth:`Runner.astream`. Leaving the
    loop early, an interrupt, or leaving the ``with`` block cancels the request.
    """

    def __init__(self, start: Callable[[Callable[[Event], None]], _Conversation]) -> None:
        self._start = start
        self._conversation: _Conversation | None = None
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer; there once the iteration has ended."""
        if self._reply is None:
            raise OptionError("the reply is there once the stream has been read to its end")
        return self._reply

    def cancel(self) -> None:
        """End the answer at the next token, from any thread; its reason is ``cancelled``."""
        if self._conversation:
            self._conversation.cancel()

    def __iter__(self) -> Iterator[Piece]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        conversation = self._begin(events.put)
        try:
            while self._reply is None:
                yield from self._take(conversation, events.get())
        finally:
            self._stop()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        conversation = self._begin(lambda e: _void(loop.call_soon_threadsafe(events.put_nowait, e)))
        try:
            while self._reply is None:
                for piece in self._take(conversation, await events.get()):
                    yield piece
        finally:
            self._stop()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _begin(self, emit: Callable[[Event], None]) -> _Conversation:
        if self._conversation is not None:
            raise OptionError("a stream can be read once")
        self._conversation = self._start(emit)
        return self._conversation

    def _take(self, conversation: _Conversation, event: Event) -> list[Piece]:
        pieces, self._reply = conversation.take(event)
        return pieces

    def _stop(self) -> None:
        if self._reply is None:
            self.cancel()


def _void(_: object) -> None:
    return None


class _Conversation:
    """One request and the answer that comes of it."""

    def __init__(
        self, runner: Runner, request: Request, prompt: str, tools: dict[str, Tool]
    ) -> None:
        self._runner, self._request, self._prompt, self._tools = runner, request, prompt, tools
        opened = prompt.rstrip().endswith(THINK)
        self._answer = Answer(thinks=True if opened else None)
        self._raw: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def cancel(self) -> None:
        self._runner._scheduler.cancel(self._request)

    def take(self, event: Event) -> tuple[list[Piece], Reply | None]:
        """Return what an event adds to the stream, and the reply if it is the last."""
        if isinstance(event, Delta):
            self._raw.append(event.text)
            self._logprobs += event.logprobs
            return self._answer.feed(event.text), None
        if isinstance(event, Finished):
            pieces = self._answer.finish()
            return pieces, self._reply(event)
        raise event

    def _reply(self, end: Finished) -> Reply:
        answer, request = self._answer, self._request
        calls, bad = self._checked()
        if end.reason != "cancelled" and request.text.stopped is None:  # text and tokens agree
            written = request.generated[: -1 if end.reason == "stop" else None]
            self._runner._prompts.remember(self._prompt, "".join(self._raw), written)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thinking:
            message["thinking"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in answer.calls
            ]
        return Reply(
            text=answer.text.lstrip() if answer.thinking else answer.text,
            thinking=answer.thinking,
            tool_calls=tuple(calls),
            bad_calls=(*answer.bad_calls, *bad),
            finish_reason=end.reason,
            usage=end.usage,
            seed=request.options.seed or 0,
            message=message,
            logprobs=tuple(self._logprobs) if request.options.logprobs is not None else None,
        )

    def _checked(self) -> tuple[list[ToolCall], list[BadCall]]:
        """Tell calls that fit their tools from those that do not; without tools, all pass."""
        good: list[ToolCall] = []
        bad: list[BadCall] = []
        for call in self._answer.calls:
            tool = self._tools.get(call.name)
            unknown = f"there is no tool {call.name!r}" if self._tools and not tool else None
            problem = tool.problem(call) if tool else unknown
            if problem:
                bad.append(BadCall(f"{call.name}({call.arguments})", problem))
            else:
                good.append(call)
        return good, bad


class Runner:
    """A GGUF file of an LFM2 model, opened on a device, for any number of threads and tasks.

    Args:
        path: the file.
        device: ``auto``, ``cpu``, ``cuda``, ``vulkan``, ``rocm`` or ``metal``; ``cuda:1`` is the
            second of its kind. What really runs is in :attr:`device`.
        gpu_layers: layers to offload, the output counting as one; None: as many as fit.
        context: tokens in memory, shared by all conversations; None: what the model was trained
            for, at most 8192.
        parallel: requests that are computed together; more wait.
        threads: CPU threads; None: the physical cores this process may use.
        state_bytes: bound of the memory for states of conversations that had to make room.

    Raises :class:`Lfm2ggufError`: :class:`GGUFError` for files that cannot be run,
    :class:`DeviceError` for devices that are not there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        gpu_layers: int | None = None,
        context: int | None = None,
        parallel: int = 4,
        threads: int | None = None,
        state_bytes: int = 256 << 20,
    ) -> None:
        for name, value in (("parallel", parallel), ("context", context), ("threads", threads)):
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}: it must be at least 1")
        self.path = Path(path)
        file = device_choice.check_file(self.path)
        on = device_choice.choose(device)
        size = sum(info.nbytes for info in file.tensors.values())
        trained = trained_context(file)
        n_ctx = context or min(trained, DEFAULT_CONTEXT)
        on, layers = _placement(file, on, gpu_layers, device, n_ctx)
        if not on:
            device_choice.check_memory(self.path, size, device_choice.available_memory())
        self._model = Model(self.path, on, layers)
        try:
            self._context = Context(
                self._model,
                n_ctx=n_ctx,
                n_seq_max=parallel,
                n_outputs=max(parallel, 1),
                threads=threads,
                unified=True,
            )
            self.device = device_choice.report(self._model, self._context, on)
            self._embedder = Embedder(self._model, file, threads)
            self._chat_template = self._make_template()
            self._prompts = PromptTokens(self._model)
        except Lfm2ggufError:
            self._model.close()
            raise
        self.defaults = default_options(self._model.metadata)
        self._scheduler = Scheduler(
            self._model,
            self._context,
            state_bytes=state_bytes,
            visible=self._visible_tokens(),
            before_close=self._embedder.close,
        )
        self._finalizer = weakref.finalize(self, self._scheduler.close)

    @classmethod
    def from_hub(
        cls, repository: str, type: str = "Q4_K_M", *, revision: str | None = None, **options: Any
    ) -> Runner:
        """Open a file of a Hub repository, downloaded into the Hub's cache once.

        ``Runner.from_hub("LiquidAI/LFM2-1.2B-GGUF", "Q4_K_M")``; the options are the class's.
        Raises :class:`HubError`.
        """
        from lfm2gguf.runner.hub import fetch_gguf

        return cls(fetch_gguf(repository, type, revision), **options)

    # chat

    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] | None = None,
        overflow: str = "error",
        template: dict[str, Any] | None = None,
        **options: Unpack[OptionChanges],
    ) -> Reply:
        """Answer a conversation: a text, or messages with ``role`` and ``content``.

        ``tools`` are functions or JSON schemas. ``overflow="drop"`` leaves out the oldest turns
        where the prompt does not fit; ``template`` are variables for the chat template.
        Raises :class:`ContextError`, :class:`OptionError`, :class:`RuntimeFailureError`.
        """
        stream = self.stream(messages, tools=tools, overflow=overflow, template=template, **options)
        for _ in stream:
            pass
        return stream.reply

    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] | None = None,
        overflow: str = "error",
        template: dict[str, Any] | None = None,
        **options: Unpack[OptionChanges],
    ) -> Stream:
        """Answer as :meth:`chat` does, piece by piece."""
        known = as_tools(tools)
        schemas = [tool.schema for tool in known.values()]
        prompt = self._fit(as_messages(messages), schemas, overflow, template or {})
        return self._stream(prompt, known, options)

    def complete(self, prompt: str, **options: Unpack[OptionChanges]) -> Reply:
        """Continue a plain text, without a chat template; BOS is put in front where it belongs."""
        bos = self._model.token_text(self._model.bos) if self._model.adds_bos else ""
        stream = self._stream(prompt if prompt.startswith(bos) else bos + prompt, {}, options)
        for _ in stream:
            pass
        return stream.reply

    def batch(self, conversations: Sequence[Messages], **arguments: Any) -> list[Reply]:
        """Answer several conversations together; the arguments are :meth:`chat`'s."""
        streams = [self.stream(messages, **arguments) for messages in conversations]
        queues: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue() for _ in streams]
        with self._scheduler.together():
            started = [s._begin(q.put) for s, q in zip(streams, queues, strict=True)]
        try:
            for stream, conversation, events in zip(streams, started, queues, strict=True):
                while stream._reply is None:
                    stream._take(conversation, events.get())
        finally:
            for stream in streams:
                stream._stop()
        return [stream.reply for stream in streams]

    async def achat(self, messages: Messages, **arguments: Any) -> Reply:
        """Answer as :meth:`chat` does, for ``await``. Cancelling the task cancels the request."""
        stream = self.stream(messages, **arguments)
        async for _ in stream:
            pass
        return stream.reply

    def astream(self, messages: Messages, **arguments: Any) -> Stream:
        """Answer as :meth:`stream` does, for ``async for``."""
        return self.stream(messages, **arguments)

    def run_tools(
        self,
        messages: Messages,
        tools: Sequence[Callable[..., Any]],
        *,
        max_rounds: int = 8,
        **arguments: Any,
    ) -> tuple[Reply, list[Message]]:
        """Answer, executing the functions the model calls, until it calls none.

        Returns the last reply and the whole conversation. A call that is malformed, does not fit
        its schema or raises is told to the model as its result, never executed. After
        ``max_rounds`` the last reply may still hold calls.
        """
        known = as_tools(tools)
        if any(tool.function is None for tool in known.values()):
            raise OptionError(
                "run_tools needs functions; for schemas, use chat and execute yourself"
            )
        history = list(as_messages(messages))
        for _ in range(max_rounds):
            reply = self.chat(history, tools=tools, **arguments)
            history.append(reply.message)
            if not reply.tool_calls and not reply.bad_calls:
                break
            history += [_result(call.name, _execute(known, call)) for call in reply.tool_calls]
            history += [_result("", {"error": bad.reason}) for bad in reply.bad_calls]
        return reply, history

    def embed(
        self, texts: Sequence[str], *, kind: str | None = None, normalize: bool = True
    ) -> list[Floats]:
        """Embed texts with a model made for it: float32, one array a text.

        ``(width,)`` where the file names a pooling, ``(tokens, width)`` for ColBERT members,
        which :func:`maxsim` compares. ``kind`` puts the prefix for a ``query`` or ``document`` in
        front where the model pools; vectors have length 1 unless ``normalize`` is False. Raises
        :class:`UnsupportedError` for other models, :class:`ContextError` for texts too long.
        """
        self._scheduler.check_usable()
        given = [texts] if isinstance(texts, str) else texts
        return self._embedder.embed(given, kind, normalize=normalize)

    # what is known of the model

    def count_tokens(self, messages: Messages, tools: Sequence[ToolLike] | None = None) -> int:
        """Return how many tokens a conversation's prompt has."""
        self._scheduler.check_usable()
        schemas = [tool.schema for tool in as_tools(tools).values()]
        return len(self._prompts.encode(self._template.prompt(messages, schemas)))

    @property
    def context_size(self) -> int:
        """Tokens the context holds, for all conversations together."""
        return self._context.n_ctx

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata; arrays are shortened."""
        return self._model.metadata

    @property
    def memory(self) -> MemoryUse:
        """What is held for later turns."""
        return self._scheduler.memory_use

    def close(self) -> None:
        """End all requests and free the model. Safe to call twice."""
        self._finalizer()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # how it is done

    @property
    def _template(self) -> Template:
        if self._chat_template is None:
            raise UnsupportedError(
                f"{self.path}: the file has no chat template; convert a checkpoint that has one, "
                "or use complete() and embed()"
            )
        return self._chat_template

    def _make_template(self) -> Template | None:
        source = self._model.chat_template
        if source is None:
            return None
        text, metadata = self._model.token_text, self._model.metadata
        pad = int(metadata.get("tokenizer.ggml.padding_token_id", -1))
        bos, eos, pad_text = (
            text(token) if token >= 0 else "" for token in (self._model.bos, self._model.eos, pad)
        )
        return Template(source, bos=bos, eos=eos, pad=pad_text)

    def _visible_tokens(self) -> frozenset[int]:
        """Markers that are control tokens and yet part of what is parsed."""
        markers = (self._model.tokenize(text) for text in (START, END, THINK, THINK_END))
        return frozenset(tokens[0] for tokens in markers if len(tokens) == 1)

    def _fit(
        self,
        messages: list[Message],
        schemas: list[Any],
        overflow: str,
        variables: dict[str, Any],
    ) -> str:
        if overflow not in ("error", "drop"):
            raise OptionError(f"overflow is {overflow!r}: it must be 'error' or 'drop'")
        self._scheduler.check_usable()
        while True:
            prompt = self._template.prompt(messages, schemas, **variables)
            room = self._context.n_ctx - min(ANSWER_ROOM, self._context.n_ctx // 4)
            if overflow == "error" or len(self._prompts.encode(prompt)) <= room:
                return prompt
            shorter = drop_oldest_turn(messages)
            if len(shorter) == len(messages):
                raise ContextError(
                    f"the last turn alone does not fit into {self._context.n_ctx} tokens of context"
                )
            messages = shorter

    def _stream(self, prompt: str, tools: dict[str, Tool], options: OptionChanges) -> Stream:
        chosen = self.defaults.changed(**options).seeded()
        self._scheduler.check_usable()
        tokens = self._prompts.encode(prompt)

        def start(emit: Callable[[Event], None]) -> _Conversation:
            request = Request(tokens, chosen, emit, self._prompts.marks(tokens))
            conversation = _Conversation(self, request, prompt, tools)
            self._scheduler.submit(request)
            return conversation

        return Stream(start)


def trained_context(file: GGUFFile) -> int:
    """Return the tokens a member was trained for: less than most files claim."""
    claimed = file.get(f"{file.architecture}.context_length")
    names = ("general.name", "general.basename", "general.size_label")
    name = "-".join(str(file.get(key, "")) for key in names).lower().replace(" ", "-")
    longer = (n for words, n in LONGER_TRAINED.items() if all(word in name for word in words))
    trained = next(longer, TRAINED_CONTEXT)
    return min(claimed, trained) if isinstance(claimed, int) else trained


def drop_oldest_turn(messages: list[Message]) -> list[Message]:
    """Leave out the oldest question and all that belongs to it; system and last turn stay."""
    first = 1 if messages[0]["role"] == "system" else 0
    questions = [i for i, m in enumerate(messages) if m["role"] == "user" and i > first]
    return messages[:first] + messages[questions[0] :] if questions else messages


def _placement(
    file: GGUFFile, on: list[Device], layers: int | None, asked: str, n_ctx: int
) -> tuple[list[Device], int]:
    """Decide how many layers go to the device; none that fit is an error if it was asked for."""
    if not on or layers == 0:
        return [], 0
    if layers is not None:
        return on, layers
    cache = 4 * n_ctx * int(str(file.get(f"{file.architecture}.embedding_length", 0)))  # generous
    fit = device_choice.layers_that_fit(file, on[0], cache)
    if fit:
        return on, fit
    if asked == "auto":
        return [], 0
    free = on[0].memory_free / 1e9
    raise DeviceError(f"{asked}: no layer fits into its {free:.1f} GB of free memory")


def _execute(tools: dict[str, Tool], call: ToolCall) -> Any:
    function = tools[call.name].function
    assert function is not None
    try:
        return function(**call.arguments)
    except Exception as error:  # the model shall know, and may try again
        return {"error": f"{type(error).__name__}: {error}"}


def _result(name: str, value: Any) -> Message:
    import json

    content = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    )
    return {"role": "tool", "name": name, "content": content}
