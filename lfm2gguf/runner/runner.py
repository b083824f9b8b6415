"""The Runner: a model file, opened for chat."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.chat.template import Message, Messages
from lfm2gguf.chat.tools import Tool, ToolLike, as_tools
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Floats, LazyGrammar, Model
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.options import OptionChanges
from lfm2gguf.runner.answer import tool_rounds
from lfm2gguf.runner.answer.grammar import lazy_calls
from lfm2gguf.runner.answer.pieces import Answer, Verbatim
from lfm2gguf.runner.answer.stream import Conversation, Reply, Stream
from lfm2gguf.runner.arguments import FilePath
from lfm2gguf.runner.embeddings import Embeddings
from lfm2gguf.runner.engine.memory import MemoryUse
from lfm2gguf.runner.engine.request import Event, Load, Request
from lfm2gguf.runner.engine.scheduler import Scheduler
from lfm2gguf.runner.opening import open_model
from lfm2gguf.runner.prompts import Prompt, Prompts, plain_text
from lfm2gguf.runner.tokens import Tokens
from lfm2gguf.sampling import default_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lfm2gguf.runner.arguments import AnswerArguments, ChatArguments, Settings


class Runner:
    """A GGUF file of an LFM2 model, opened on a device, for any number of threads and tasks.

    Vectors of texts are under :attr:`embeddings`, the vocabulary is under :attr:`tokens`.

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
        lookup: most tokens that are guessed at once, for a request that runs alone, from what
            its prompt and answer repeat; a guess is kept only if the sampler draws it. 0: off.
        draft: a small model of the same vocabulary, as a GGUF file, that guesses what the text
            does not repeat: LFM2-350M for LFM2-2.6B.
        threads: CPU threads; None: the physical cores this process may use.
        state_bytes: bound of the memory for states of conversations that had to make room.
        parse_markers: let markers such as ``<|im_end|>`` in the texts of users and tools become
            control tokens, as transformers and llama.cpp do. By default they are plain text:
            who writes them cannot end a turn and speak as somebody else.
        inject_tools: list tools in the system message, in the family's form, where the chat
            template never mentions them; otherwise they are refused.
        mmap: leave weights in the file as far as they can stay there, shared with other processes;
            without, they are read: decoding is a few percent faster, and a file that is changed
            or cut meanwhile cannot end the process or change an answer. None: they are read if
            that takes a quarter of the free memory at most.

    Raises:
        GGUFError: a file cannot be run.
        DeviceError: the device is not there, or lacks memory.
        OptionError: an argument is out of its range.
    """

    @numbers_checked
    def __init__(
        self,
        path: FilePath,
        *,
        device: str = "auto",
        gpu_layers: int | None = None,
        context: int | None = None,
        parallel: int = 4,
        lookup: int = 8,
        draft: FilePath | None = None,
        threads: int | None = None,
        state_bytes: int = 256 << 20,
        parse_markers: bool = False,
        inject_tools: bool = True,
        mmap: bool | None = None,
        adapters: Mapping[str, FilePath] | None = None,
        mmproj: FilePath | None = None,
    ) -> None:
        self.path = Path(path)
        opened = open_model(
            self.path,
            device=device,
            gpu_layers=gpu_layers,
            context=context,
            parallel=parallel,
            lookup=lookup,
            draft=draft,
            threads=threads,
            adapters=adapters or {},
            mmproj=mmproj,
            inject_tools=inject_tools,
            mmap=mmap,
        )
        self.device = opened.device
        self.dialect: Dialect = opened.dialect  # how the model writes thinking and calls
        self.defaults = default_options(opened.file)
        self.metadata: dict[str, str] = opened.model.metadata  # of the file; arrays are shortened
        self.context_size: int = opened.context.n_ctx  # tokens, for all conversations together
        self.adapters = tuple(opened.adapters)  # the names that the option ``adapter`` takes
        self.parallel: int = opened.context.n_seq_max  # requests that are computed together
        self.scheduler = Scheduler(
            opened.model,
            opened.context,
            state_bytes=state_bytes,
            visible=_visible_tokens(opened.model, opened.dialect),
            adapters=opened.adapters,
            guesses=opened.guesses,
            release=opened.close,
        )
        self._finalizer = weakref.finalize(self, self.scheduler.close)
        self.prompts = Prompts(opened, self.scheduler, parse_markers=parse_markers)
        self.tokens = Tokens(opened.model, self.prompts, self.scheduler)
        self.embeddings = Embeddings(opened.embedder, self.scheduler)

    @classmethod
    def from_hub(
        cls,
        repository: str,
        type: str = "Q4_K_M",
        *,
        revision: str | None = None,
        **settings: Unpack[Settings],
    ) -> Runner:
        """Open a file of a Hub repository, downloaded into the Hub's cache once.

        ``Runner.from_hub("LiquidAI/LFM2-1.2B-GGUF", "Q4_K_M")``; the settings are the class's.

        Raises:
            HubError: the file cannot be found or downloaded.
        """
        from lfm2gguf.checkpoint import fetch_gguf

        return cls(fetch_gguf(repository, type, revision), **settings)

    def chat(self, messages: Messages, **arguments: Unpack[ChatArguments]) -> Reply:
        """Answer a conversation, and return the whole answer; the arguments are :meth:`stream`'s.

        Raises:
            ContextError: the prompt does not fit into the context.
            OptionError: a message, a tool or an option is not valid.
            RuntimeFailureError: the computation failed, or the runner is closed.
        """
        return self.stream(messages, **arguments).wait()

    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] | None = None,
        overflow: str = "error",
        template: dict[str, Any] | None = None,
        ending: str = "answer",
        parallel_calls: bool = True,
        **options: Unpack[OptionChanges],
    ) -> Stream:
        """Answer a conversation, piece by piece: a text, or messages with ``role`` and ``content``.

        ``tools`` are functions or JSON schemas: a call, once begun, is bound to their names and
        schemas, unless a grammar or a JSON schema is given. ``overflow="drop"`` leaves out the
        oldest turns where the prompt does not fit; ``template`` are variables for the chat
        template. ``ending="continue"`` goes on with the last message, if it is an assistant's,
        and ``"open"`` begins no answer. Without ``parallel_calls`` the answer ends behind one call.

        Raises:
            ContextError: the prompt does not fit into the context.
            OptionError: a message, a tool or an option is not valid.
            RuntimeFailureError: the computation failed, or the runner is closed.
        """
        known = as_tools(tools)
        prompt = self.prompts.of_chat(
            messages, tools, overflow=overflow, variables=template, ending=ending
        )
        answer = Answer(prompt.thinks, known, parallel_calls, dialect=self.dialect)
        thinks = bool(answer.thinks)
        calls = lazy_calls(known, self.dialect, thinks=thinks, several=parallel_calls)
        return self._stream(prompt, answer, known, calls, options)

    def complete(self, prompt: str | Sequence[int], **options: Unpack[OptionChanges]) -> Reply:
        """Continue a plain text, or tokens, without a chat template; the reply is all text.

        BOS is put in front of a text where it belongs.
        """
        return self.stream_complete(prompt, **options).wait()

    def stream_complete(
        self, prompt: str | Sequence[int], **options: Unpack[OptionChanges]
    ) -> Stream:
        """Continue as :meth:`complete` does, piece by piece."""
        return self._stream(self.prompts.of_text(prompt), Verbatim(), {}, None, options)

    def batch(
        self, conversations: Sequence[Messages], **arguments: Unpack[ChatArguments]
    ) -> list[Reply]:
        """Answer several conversations together; the arguments are :meth:`stream`'s.

        Raises:
            OptionError: it is one text, or as :meth:`stream`.
        """
        if isinstance(conversations, str):  # whose characters would be conversations
            raise OptionError("conversations is one text: give a list, or use chat()")
        streams = [self.stream(messages, **arguments) for messages in conversations]
        try:
            with self.scheduler.together():
                for stream in streams:
                    stream.start()
            return [stream.wait() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    async def achat(self, messages: Messages, **arguments: Unpack[ChatArguments]) -> Reply:
        """Answer as :meth:`chat` does, for ``await``. Cancelling the task cancels the request."""
        stream = await asyncio.to_thread(self.stream, messages, **arguments)
        return await stream.wait_async()

    def astream(self, messages: Messages, **arguments: Unpack[ChatArguments]) -> Stream:
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
        **arguments: Unpack[AnswerArguments],
    ) -> tuple[Reply, list[Message]]:
        """Answer, and run the functions that the model calls until it calls none.

        Returns the last reply and the whole conversation. A call that is malformed, does not fit
        its schema or raises is told to the model as its result, never executed. After
        ``max_rounds`` the last reply may still hold calls.

        Raises:
            OptionError: a tool is not a function that can be called here.
        """
        steps = tool_rounds.rounds(messages, tool_rounds.functions(tools), max_rounds)
        return tool_rounds.run(steps, lambda h: self.chat(h, tools=tools, **arguments))

    async def arun_tools(
        self,
        messages: Messages,
        tools: Sequence[Callable[..., Any]],
        *,
        max_rounds: int = 8,
        **arguments: Unpack[AnswerArguments],
    ) -> tuple[Reply, list[Message]]:
        """Answer as :meth:`run_tools` does, for ``await``.

        Coroutine functions are awaited; others run in a thread, so that the loop goes on.
        """
        known = tool_rounds.functions(tools, awaited=True)
        steps = tool_rounds.rounds(messages, known, max_rounds)
        return await tool_rounds.arun(steps, lambda h: self.achat(h, tools=tools, **arguments))

    def render(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] | None = None,
        template: dict[str, Any] | None = None,
        ending: str = "answer",
    ) -> str:
        """Return the prompt of a conversation as the chat template writes it."""
        prompt = self.prompts.of_chat(messages, tools, variables=template, ending=ending)
        return plain_text(prompt)

    def embed(
        self,
        texts: str | Sequence[str | Sequence[int]],
        *,
        kind: str | None = None,
        normalize: bool = True,
    ) -> list[Floats]:
        """Embed texts: :attr:`embeddings`, called."""
        return self.embeddings(texts, kind=kind, normalize=normalize)

    def count_tokens(self, messages: Messages, tools: Sequence[ToolLike] | None = None) -> int:
        """Return how many tokens a conversation's prompt has."""
        return self.tokens.count(messages, tools)

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text, BOS in front where the file asks for one."""
        return self.tokens.encode(text)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token: part of a character, perhaps."""
        return self.tokens.bytes_of(token)

    def __repr__(self) -> str:
        """Return what is open, and where."""
        return (
            f"Runner({str(self.path)!r} on {self.device}, context {self.context_size}, "
            f"{self.parallel} at once)"
        )

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a model and its threads belong to one process."""
        raise TypeError(f"{self!r} cannot be sent to another process: open one there")

    @property
    def load(self) -> Load:
        """Requests at hand, and tokens since the runner was opened."""
        return self.scheduler.load

    @property
    def memory(self) -> MemoryUse:
        """What is held for later turns."""
        return self.scheduler.memory_use

    def close(self) -> None:
        """End all requests and free the model. Safe to call twice."""
        self._finalizer()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stream(
        self,
        prompt: Prompt,
        answer: Answer,
        tools: dict[str, Tool],
        calls: LazyGrammar | None,
        options: OptionChanges,
    ) -> Stream:
        chosen = self.defaults.changed(**options).seeded()
        spelled, scheduler = self.prompts.spelled, self.scheduler

        def start(emit: Callable[[Event], None]) -> Conversation:
            marks = spelled.marks(prompt.tokens)
            request = Request(prompt.tokens, chosen, emit, marks, calls, prompt.rows)
            scheduler.submit(request)
            return Conversation(request, prompt.text, answer, tools, scheduler, spelled)

        return Stream(start, len(prompt.tokens))


def _visible_tokens(model: Model, dialect: Dialect) -> frozenset[int]:
    """Return the markers that are control tokens and yet part of what is parsed."""
    markers = (model.tokenize(text) for text in dialect.own)
    return frozenset(tokens[0] for tokens in markers if len(tokens) == 1)
