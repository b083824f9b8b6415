"""The Runner: a model file, opened for chat."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfm2gguf.chat.dialect import END, START, THINK, THINK_END
from lfm2gguf.chat.guard import Guard, markers_of
from lfm2gguf.chat.template import (
    Message,
    Messages,
    Template,
    as_messages,
    check_variables,
    drop_oldest_turn,
)
from lfm2gguf.chat.tools import Tool, ToolLike, as_tools
from lfm2gguf.errors import ContextError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Adapter, Context, Floats, Model, Projector, choose, report
from lfm2gguf.llamacpp.machine import available_memory
from lfm2gguf.members import trained_context
from lfm2gguf.options import OptionChanges
from lfm2gguf.runner import placement
from lfm2gguf.runner.answer import tool_rounds
from lfm2gguf.runner.answer.pieces import Answer, Verbatim
from lfm2gguf.runner.answer.stream import Conversation, Reply, Stream
from lfm2gguf.runner.embeddings import Embedder
from lfm2gguf.runner.engine.memory import MemoryUse
from lfm2gguf.runner.engine.prompt_tokens import PromptTokens
from lfm2gguf.runner.engine.request import Event, Load, Request
from lfm2gguf.runner.engine.scheduler import Scheduler
from lfm2gguf.runner.media import Encoded, Encoder, take_out
from lfm2gguf.runner.options import default_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_CONTEXT = 8_192
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ (src/llama-cparams.h)
ANSWER_ROOM = 512  # tokens kept free for an answer when old turns are dropped


class Runner:
    """A GGUF file of an LFM2 model, opened on a device, for any number of threads and tasks.

    Args:
        path: the file.
        device: ``auto``, ``cpu``, ``cuda``, ``vulkan``, ``rocm`` or ``metal``; ``cuda:1`` is the
            second of its kind. What really runs is in :attr:`device`.
        gpu_layers: layers to offload, the output counting as one (-1: all); None: as many as fit.
        adapters: LoRA adapters as GGUF files (``lfm2gguf convert-lora``) by name, for the option
            ``adapter`` of each request.
        mmproj: the projector of a vision or audio model: messages may hold images or sound.
        context: tokens in memory, shared by all conversations; None: what the model was trained
            for, at most 8192.
        parallel: requests that are computed together; more wait.
        threads: CPU threads; None: the physical cores this process may use.
        state_bytes: bound of the memory for states of conversations that had to make room.
        parse_markers: let markers such as ``<|im_end|>`` in the texts of users and tools become
            control tokens, as transformers and llama.cpp do. By default they are plain text:
            who writes them cannot end a turn and speak as somebody else.

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
        parse_markers: bool = False,
        adapters: Mapping[str, str | os.PathLike[str]] | None = None,
        mmproj: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value in (("parallel", parallel), ("context", context), ("threads", threads)):
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}: it must be at least 1")
        if parallel > MOST_SEQUENCES:
            raise OptionError(f"parallel is {parallel}: llama.cpp has {MOST_SEQUENCES} sequences")
        self.path = Path(path)
        file = placement.check_file(self.path)
        on = choose(device)
        size = sum(info.nbytes for info in file.tensors.values())
        trained = trained_context(file)
        n_ctx = context or min(trained, DEFAULT_CONTEXT)
        on, layers = placement.place(file, on, gpu_layers, device, n_ctx)
        if not on:
            placement.check_memory(self.path, size, available_memory())
        with contextlib.ExitStack() as parts:  # what is open is closed if the rest fails
            self._model = parts.enter_context(Model(self.path, on, layers))
            loaded = self._load_adapters(adapters or {}, file)
            self._context = parts.enter_context(
                Context(
                    self._model,
                    n_ctx=n_ctx,
                    n_seq_max=parallel,
                    n_outputs=max(parallel, 1),
                    threads=threads,
                    unified=True,
                )
            )
            self.device = report(self._model, self._context, on)
            self._embedder = parts.enter_context(
                contextlib.closing(Embedder(self._model, file, threads))
            )
            self._encoder = self._open_projector(mmproj, threads)
            if self._encoder:
                parts.callback(self._encoder.close)
            self._chat_template = self._make_template()
            self._prompts = PromptTokens(self._model)
            self._guard = Guard(set() if parse_markers else markers_of(file))
            self.defaults = default_options(file)
            self._scheduler = Scheduler(
                self._model,
                self._context,
                state_bytes=state_bytes,
                visible=self._visible_tokens(),
                adapters=loaded,
                release=parts.pop_all().close,
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
        return stream.wait()

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
        plain, media = self._take_media(messages)
        prompt = self._fit(self._guard(plain), media, schemas, overflow, template or {})
        thinks = True if prompt.rstrip().endswith(THINK) else None
        tokens = self._prompts.encode(prompt, media)
        rows = {token: row for medium in media for token, row in medium.rows.items()}
        return self._stream(prompt, tokens, Answer(thinks), known, options, rows)

    def complete(self, prompt: str | Sequence[int], **options: Unpack[OptionChanges]) -> Reply:
        """Continue a plain text, or tokens, without a chat template; the reply is all text.

        BOS is put in front of a text where it belongs.
        """
        return self.stream_complete(prompt, **options).wait()

    def stream_complete(
        self, prompt: str | Sequence[int], **options: Unpack[OptionChanges]
    ) -> Stream:
        """Continue as :meth:`complete` does, piece by piece."""
        self._scheduler.check_usable()
        if not isinstance(prompt, str):
            return self._stream("", self._model.checked(prompt), Verbatim(), {}, options)
        bos = self._model.token_text(self._model.bos) if self._model.adds_bos else ""
        text = prompt if prompt.startswith(bos) else bos + prompt
        return self._stream(text, self._prompts.encode(text), Verbatim(), {}, options)

    def batch(self, conversations: Sequence[Messages], **arguments: Any) -> list[Reply]:
        """Answer several conversations together; the arguments are :meth:`chat`'s."""
        streams = [self.stream(messages, **arguments) for messages in conversations]
        try:
            with self._scheduler.together():
                for stream in streams:
                    stream.start()
            return [stream.wait() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    async def achat(self, messages: Messages, **arguments: Any) -> Reply:
        """Answer as :meth:`chat` does, for ``await``. Cancelling the task cancels the request."""
        stream = await asyncio.to_thread(self.stream, messages, **arguments)
        return await stream.wait_async()

    def astream(self, messages: Messages, **arguments: Any) -> Stream:
        """Answer as :meth:`stream` does, for ``async for``.

        Images and sound are encoded before this returns: with them, call it in a thread.
        """
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
        known = tool_rounds.functions(tools, max_rounds)
        history = list(as_messages(messages))
        for _ in range(max_rounds):
            reply = self.chat(history, tools=tools, **arguments)
            told = tool_rounds.results(known, reply)
            history += [reply.message, *told]
            if not told:
                break
        return reply, history

    async def arun_tools(
        self,
        messages: Messages,
        tools: Sequence[Callable[..., Any]],
        *,
        max_rounds: int = 8,
        **arguments: Any,
    ) -> tuple[Reply, list[Message]]:
        """Answer as :meth:`run_tools` does, for ``await``.

        Coroutine functions are awaited; others run in a thread, so that the loop goes on.
        """
        known = tool_rounds.functions(tools, max_rounds, awaited=True)
        history = list(as_messages(messages))
        for _ in range(max_rounds):
            reply = await self.achat(history, tools=tools, **arguments)
            told = await tool_rounds.aresults(known, reply)
            history += [reply.message, *told]
            if not told:
                break
        return reply, history

    def embed(
        self, texts: Sequence[str], *, kind: str | None = None, normalize: bool = True
    ) -> list[Floats]:
        """Embed texts with a model made for it: float32, one array a text.

        ``(width,)`` where the file names a pooling, ``(tokens, width)`` for ColBERT members,
        which :func:`maxsim` compares. ``kind`` puts the model's prefix for a ``query`` or a
        ``document`` in front; of a document for ColBERT the vectors of punctuation are left out,
        as PyLate does. Vectors have length 1 unless ``normalize`` is False. Raises
        :class:`UnsupportedError` for other models, :class:`ContextError` for texts too long.
        """
        self._scheduler.check_usable()
        self._embedder.check(kind)
        embed = functools.partial(self._embedder.embed, kind=kind, normalize=normalize)
        given = [texts] if isinstance(texts, str) else texts
        return [self._scheduler.call(functools.partial(embed, text)) for text in given]

    # what is known of the model

    def count_tokens(self, messages: Messages, tools: Sequence[ToolLike] | None = None) -> int:
        """Return how many tokens a conversation's prompt has."""
        self._scheduler.check_usable()
        schemas = [tool.schema for tool in as_tools(tools).values()]
        plain, media = self._take_media(messages)
        prompt = self._template.prompt(self._guard(plain), schemas)
        return len(self._prompts.encode(prompt, media))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text, BOS in front where the file asks for one."""
        self._scheduler.check_usable()
        return self._model.tokenize(text, bos=True)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token: part of a character, perhaps."""
        self._scheduler.check_usable()
        return self._model.piece(*self._model.checked([token]), special=True)

    @property
    def context_size(self) -> int:
        """Tokens the context holds, for all conversations together."""
        return self._context.n_ctx

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata; arrays are shortened."""
        return self._model.metadata

    @property
    def parallel(self) -> int:
        """Requests that are computed together."""
        return self._context.n_seq_max

    @property
    def load(self) -> Load:
        """Requests at hand, and tokens since the runner was opened."""
        return self._scheduler.load

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

    def _load_adapters(
        self, paths: Mapping[str, str | os.PathLike[str]], file: GGUFFile
    ) -> dict[str, Adapter]:
        for path in paths.values():
            placement.check_adapter(Path(path), file)
        return {name: self._model.load_adapter(path) for name, path in paths.items()}

    def _open_projector(
        self, mmproj: str | os.PathLike[str] | None, threads: int | None
    ) -> Encoder | None:
        if mmproj is None:
            return None
        longest = placement.longest_sound(placement.check_projector(Path(mmproj)))
        projector = Projector(mmproj, self._model, threads=threads, longest_sound=longest)
        return Encoder(projector)

    def _take_media(self, messages: Messages) -> tuple[list[Message], list[Encoded]]:
        """Return the messages with places for their images and sounds, and these encoded."""
        self._scheduler.check_usable()
        plain, media = take_out(as_messages(messages))
        if not media:
            return plain, []
        if self._encoder is None:
            raise OptionError(
                "images and sound need the model's projector: open the model with mmproj="
                "'mmproj-....gguf', which `lfm2gguf convert --mmproj` makes of its checkpoint"
            )
        encode = self._encoder.encode
        return plain, [self._scheduler.call(functools.partial(encode, each)) for each in media]

    def _visible_tokens(self) -> frozenset[int]:
        """Markers that are control tokens and yet part of what is parsed."""
        markers = (self._model.tokenize(text) for text in (START, END, THINK, THINK_END))
        return frozenset(tokens[0] for tokens in markers if len(tokens) == 1)

    def _fit(
        self,
        messages: list[Message],
        media: list[Encoded],
        schemas: list[Any],
        overflow: str,
        variables: dict[str, Any],
    ) -> str:
        if overflow not in ("error", "drop"):
            raise OptionError(f"overflow is {overflow!r}: it must be 'error' or 'drop'")
        check_variables(variables)
        self._scheduler.check_usable()
        while True:
            prompt = self._template.prompt(messages, schemas, **variables)
            room = self._context.n_ctx - min(ANSWER_ROOM, self._context.n_ctx // 4)
            if overflow == "error" or len(self._prompts.encode(prompt, media)) <= room:
                return prompt
            shorter = drop_oldest_turn(messages)
            if len(shorter) == len(messages):
                raise ContextError(
                    f"the last turn alone does not fit into {self._context.n_ctx} tokens of context"
                )
            messages = shorter

    def _stream(
        self,
        prompt: str,
        tokens: list[int],
        answer: Answer,
        tools: dict[str, Tool],
        options: OptionChanges,
        rows: Mapping[int, Floats] | None = None,
    ) -> Stream:
        chosen = self.defaults.changed(**options).seeded()

        def start(emit: Callable[[Event], None]) -> Conversation:
            request = Request(tokens, chosen, emit, self._prompts.marks(tokens), rows or {})
            self._scheduler.submit(request)
            return Conversation(request, prompt, answer, tools, self._scheduler, self._prompts)

        return Stream(start, len(tokens))
