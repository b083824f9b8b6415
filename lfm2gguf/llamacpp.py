"""llama.cpp behind a small, typed surface: the only file that imports llama_cpp.

Everything above speaks of models, contexts, chunks of tokens and NumPy arrays; the C
structures, pointers and log lines stay here. Facts are from llama.cpp commit 0c1e57098
(``include/llama.h``, ``ggml/include/ggml-backend.h``), which llama-cpp-python 0.3.36 vendors.

The library is loaded at the first use, never at import. Objects are not thread-safe: one
thread drives a :class:`Context`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import (
    ContextError,
    GGUFError,
    MissingDependencyError,
    OptionError,
    RuntimeFailureError,
)

Tokens = Sequence[int]
Floats = npt.NDArray[np.float32]

logger = logging.getLogger("lfm2gguf.llamacpp")


# --- the library and its log -------------------------------------------------------------

_load_lock = threading.RLock()
_captures: list[list[str]] = []


@functools.cache
def _llama() -> Any:
    """Return the module of C functions, loaded once, its log routed to :data:`logger`.

    Raises :class:`MissingDependencyError` when llama-cpp-python is absent or cannot load.
    """
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise MissingDependencyError(
            f'llama-cpp-python is needed to run a model: pip install "lfm2gguf[run]" ({error})'
        ) from error
    except (OSError, RuntimeError) as error:  # the package is there, its shared library is not
        raise MissingDependencyError(
            f"llama-cpp-python is installed but its library does not load ({error}); "
            "reinstall it for this machine: "
            "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        ) from error
    llama_cpp.llama_log_set(_log_callback(), None)
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache
def _log_callback() -> Any:
    from llama_cpp import llama_cpp

    unfinished: list[str] = []  # a line may arrive in pieces

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def on_log(_level: int, text: bytes | None, _user: object) -> None:
        unfinished.append((text or b"").decode("utf-8", "replace"))
        if not unfinished[-1].endswith("\n"):
            return
        line = "".join(unfinished).rstrip()
        unfinished.clear()
        for capture in _captures:
            capture.append(line)
        logger.debug("%s", line)

    return on_log


@contextlib.contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collect what the C code says, so that an error can quote it. Loads run one at a time."""
    with _load_lock:
        _llama().llama_log_set(_log_callback(), None)  # others in this process set theirs
        lines: list[str] = []
        _captures.append(lines)
        try:
            yield lines
        finally:
            _captures.remove(lines)


def _last_words(lines: Sequence[str], count: int = 3) -> str:
    said = [line for line in lines if line.strip(" .")]
    return " / ".join(said[-count:]) or "no reason was given"


def build_info() -> dict[str, str]:
    """Return the versions of llama-cpp-python and llama.cpp, and the CPU features compiled in."""
    llama = _llama()
    import llama_cpp

    return {
        "llama_cpp_python": str(llama_cpp.__version__),
        "llama.cpp": llama.llama_version().decode(),
        "system": llama.llama_print_system_info().decode().strip(),
    }


class _Closed:
    """Stands in for the library in a closed object: C code must not see freed pointers."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeFailureError("the model or context is closed")


# --- devices -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """One device that the installed build can drive (``ggml_backend_dev_t``).

    ``backend`` is the registry's name (``CPU``, ``CUDA``, ``Vulkan``, ``ROCm``, ``Metal``);
    ``kind`` is ``cpu``, ``gpu``, ``igpu`` or ``accel``; memory is in bytes, as the driver
    reported it when the list was made.
    """

    name: str
    description: str
    backend: str
    kind: str
    memory_free: int
    memory_total: int
    handle: int = field(repr=False, compare=False)


_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")  # enum ggml_backend_dev_type


@functools.cache
def _ggml() -> Any:
    """Return libggml with the signatures that llama_cpp does not declare."""
    _llama()
    from llama_cpp._ggml import libggml

    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    memory = [pointer, ctypes.POINTER(size), ctypes.POINTER(size)]
    for name, arguments, result in (
        ("ggml_backend_dev_count", [], size),
        ("ggml_backend_dev_get", [size], pointer),
        ("ggml_backend_dev_name", [pointer], text),
        ("ggml_backend_dev_description", [pointer], text),
        ("ggml_backend_dev_type", [pointer], ctypes.c_int),
        ("ggml_backend_dev_memory", memory, None),
        ("ggml_backend_dev_backend_reg", [pointer], pointer),
        ("ggml_backend_reg_name", [pointer], text),
        ("ggml_backend_reg_count", [], size),
        ("ggml_backend_reg_get", [size], pointer),
    ):
        function = getattr(libggml, name)
        function.argtypes, function.restype = arguments, result
    return libggml


def backends() -> list[str]:
    """Return the names of the backends compiled into the installed llama.cpp."""
    ggml = _ggml()
    registries = (ggml.ggml_backend_reg_get(i) for i in range(ggml.ggml_backend_reg_count()))
    return [ggml.ggml_backend_reg_name(registry).decode() for registry in registries]


def devices() -> list[Device]:
    """Return the devices that the installed build finds on this machine."""
    ggml = _ggml()
    return [
        _device(ggml, ggml.ggml_backend_dev_get(i)) for i in range(ggml.ggml_backend_dev_count())
    ]


def _device(ggml: Any, handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    registry = ggml.ggml_backend_dev_backend_reg(handle)
    return Device(
        name=ggml.ggml_backend_dev_name(handle).decode(),
        description=ggml.ggml_backend_dev_description(handle).decode(),
        backend=ggml.ggml_backend_reg_name(registry).decode(),
        kind=_KINDS[ggml.ggml_backend_dev_type(handle)],
        memory_free=free.value,
        memory_total=total.value,
        handle=handle,
    )


# --- model ---------------------------------------------------------------------------------


class Model:
    """Weights and vocabulary of one GGUF file.

    ``on`` lists the devices that may hold layers; empty means the CPU alone, whatever the
    build could do. ``gpu_layers`` is how many layers go there (-1: all of them, the output
    layer counting as one). Raises :class:`GGUFError` with llama.cpp's own last words.

    ``offloaded`` and ``buffers`` are read from the library's load report, not from what was
    asked: layers on a GPU, and bytes of weights by buffer (``CPU_Mapped``, ``CUDA0``, ...).
    """

    def __init__(
        self, path: str | os.PathLike[str], on: Sequence[Device] = (), gpu_layers: int = -1
    ) -> None:
        self._llama = _llama()
        self._pointer: Any = None
        self.path = Path(path)
        params = self._llama.llama_model_default_params()
        handles = (ctypes.c_void_p * (len(on) + 1))(*(device.handle for device in on), None)
        params.devices = ctypes.cast(handles, ctypes.c_void_p)
        params.n_gpu_layers = gpu_layers if on else 0
        with _captured_log() as log:
            self._pointer = self._llama.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._pointer:
            raise GGUFError(f"{self.path}: llama.cpp cannot load it: {_last_words(log)}")
        self._vocab = self._llama.llama_model_get_vocab(self._pointer)
        self.offloaded = _first_int(r"offloaded (\d+)/\d+ layers", log)
        self.buffers = _buffer_sizes(log)
        self.metadata = self._metadata()
        self.n_vocab = int(self._llama.llama_vocab_n_tokens(self._vocab))
        self.n_layer = int(self._llama.llama_model_n_layer(self._pointer))
        self.n_embd = int(self._llama.llama_model_n_embd(self._pointer))
        self.n_embd_out = int(self._llama.llama_model_n_embd_out(self._pointer))
        self.n_ctx_train = int(self._llama.llama_model_n_ctx_train(self._pointer))
        self.size = int(self._llama.llama_model_size(self._pointer))
        self.n_params = int(self._llama.llama_model_n_params(self._pointer))

    def close(self) -> None:
        """Free the weights. Contexts made from this model must be closed first."""
        if self._pointer:
            self._llama.llama_model_free(self._pointer)
            self._pointer, self._llama = None, _Closed()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _metadata(self) -> dict[str, str]:
        llama, model = self._llama, self._pointer
        count = llama.llama_model_meta_count(model)

        def text(read: Any, index: int) -> str:
            room = read(model, index, None, 0) + 1
            buffer = ctypes.create_string_buffer(room)
            read(model, index, buffer, room)
            return buffer.value.decode("utf-8", "replace")

        key, value = llama.llama_model_meta_key_by_index, llama.llama_model_meta_val_str_by_index
        return {text(key, i): text(value, i) for i in range(count)}

    @property
    def description(self) -> str:
        """A short name such as ``lfm2 1.2B Q4_K - Medium``."""
        buffer = ctypes.create_string_buffer(256)
        self._llama.llama_model_desc(self._pointer, buffer, len(buffer))
        return buffer.value.decode()

    @property
    def chat_template(self) -> str | None:
        """The file's default chat template, or None."""
        text = self._llama.llama_model_chat_template(self._pointer, None)
        return text.decode() if text else None

    # vocabulary

    @functools.cached_property
    def _candidates(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """Room for one draw, shared by all samplers: they work one after another."""
        return np.empty(self.n_vocab, _CANDIDATE), np.arange(self.n_vocab, dtype=np.int32)

    @property
    def bos(self) -> int:
        """The id of the beginning-of-text token, or -1."""
        return int(self._llama.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> int:
        """The id of the end-of-turn token, or -1."""
        return int(self._llama.llama_vocab_eos(self._vocab))

    @property
    def adds_bos(self) -> bool:
        """Whether the file asks for BOS before a plain text."""
        return bool(self._llama.llama_vocab_get_add_bos(self._vocab))

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends an answer (EOS, EOT and the like)."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    def token_text(self, token: int) -> str:
        """Return the vocabulary's entry for a token, as the file spells it."""
        return str(self._llama.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))

    def tokenize(self, text: str, *, bos: bool = False, special: bool = True) -> list[int]:
        """Return the token ids of a text.

        ``bos`` puts BOS in front where the file asks for one; ``special`` lets markers such
        as ``<|im_start|>`` become their single token instead of plain text.
        """
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 2
        ids = (ctypes.c_int32 * room)()
        tokenize = self._llama.llama_tokenize
        count = tokenize(self._vocab, data, len(data), ids, room, bos, special)
        if count < 0:
            raise RuntimeFailureError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")
        return ids[:count]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token: part of a character, perhaps. Markers only if asked."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._llama.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def detokenize(self, tokens: Tokens, *, special: bool = False) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become U+FFFD."""
        data = b"".join(self.piece(token, special=special) for token in tokens)
        return data.decode("utf-8", "replace")


def _first_int(pattern: str, lines: Sequence[str]) -> int:
    found = (re.search(pattern, line) for line in lines)
    return next((int(match[1]) for match in found if match), 0)


def _buffer_sizes(lines: Sequence[str]) -> dict[str, int]:
    """Read ``CPU_Mapped model buffer size = 663.52 MiB`` lines; bytes by buffer name."""
    found = (re.search(r"(\S+) model buffer size = +([\d.]+) MiB", line) for line in lines)
    sizes: dict[str, int] = {}
    for match in filter(None, found):
        sizes[match[1]] = sizes.get(match[1], 0) + int(float(match[2]) * 2**20)
    return sizes


# --- context -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Tokens to decode for one sequence, the first at position ``start``.

    ``outputs`` counts the trailing tokens whose logits (or embeddings) are wanted.
    """

    seq: int
    start: int
    tokens: Tokens
    outputs: int = 0


class Context:
    """The memory of one or more sequences, and the decoding of tokens into it.

    ``n_ctx`` counts the cells of the KV cache, which all sequences share when ``unified``;
    otherwise each sequence has its own ``n_ctx / n_seq_max``. One :meth:`decode` takes at
    most ``n_batch`` tokens; the graph runs over ``n_ubatch`` at a time. ``n_outputs`` bounds the
    logits of one decode and so the memory reserved for them (0: ``n_batch``).
    ``flash_attention`` None leaves the choice to llama.cpp; the attribute says what it chose.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        n_outputs: int = 0,
        threads: int | None = None,
        threads_batch: int | None = None,
        flash_attention: bool | None = None,
        unified: bool = False,
        embeddings: bool = False,
    ) -> None:
        self._llama = llama = _llama()
        self._pointer: Any = None
        self.model = model
        self.threads = threads or default_threads()
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch = n_ctx, n_batch
        params.n_ubatch = min(n_ubatch, n_batch)
        params.n_seq_max, params.n_outputs_max = n_seq_max, n_outputs
        params.n_threads = self.threads
        params.n_threads_batch = threads_batch or self.threads
        params.flash_attn_type = -1 if flash_attention is None else int(flash_attention)
        params.kv_unified = unified
        params.embeddings = embeddings
        params.offload_kqv = params.op_offload = model.offloaded > 0
        params.no_perf = True
        with _captured_log() as log:
            self._pointer = llama.llama_init_from_model(model._pointer, params)
        if not self._pointer:
            raise RuntimeFailureError(
                f"llama.cpp cannot make a context of {n_ctx} tokens for {model.path}: "
                f"{_last_words(log)}; a smaller context needs less memory"
            )
        self._memory = llama.llama_get_memory(self._pointer)
        self.n_ctx = int(llama.llama_n_ctx(self._pointer))
        self.n_batch = int(llama.llama_n_batch(self._pointer))  # never more than n_ctx
        self.n_ubatch = int(llama.llama_n_ubatch(self._pointer))
        self.n_seq_max = n_seq_max
        self.flash_attention = (
            any("Flash Attention enabled" in line for line in log)
            if flash_attention is None
            else flash_attention
        )
        self._batch = _Batch(llama, self.n_batch)
        self._n_outputs = n_outputs or self.n_batch
        self._rows = 0

    def close(self) -> None:
        """Free the context. Arrays returned as views are invalid afterwards."""
        if self._pointer:
            self._llama.llama_free(self._pointer)
            self._pointer, self._llama = None, _Closed()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # decoding

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Run the model over the chunks, all sequences together.

        Raises :class:`ContextError` when the memory has no room, and leaves it as it was;
        :class:`RuntimeFailureError` when the computation fails.
        """
        rows = self._batch.fill(chunks)
        if rows > self._n_outputs:  # llama.cpp asserts, and would take the process down
            raise OptionError(
                f"{rows} outputs asked for in one decode of at most {self._n_outputs}"
            )
        status = self._llama.llama_decode(self._pointer, self._batch.struct)
        if status == 1:
            raise ContextError(f"the context of {self.n_ctx} tokens is full")
        if status:
            raise RuntimeFailureError(_DECODE_STATUS.get(status, f"llama_decode failed: {status}"))
        self._rows = rows

    def logits(self) -> Floats:
        """Return the logits of the last decode, ``(outputs, n_vocab)`` float32, in chunk order.

        A view of C memory, valid until the next decode: copy what must last.
        """
        return self._view(self._llama.llama_get_logits(self._pointer), self.model.n_vocab)

    def embeddings(self) -> Floats:
        """Return the embeddings of the last decode, ``(outputs, n_embd_out)`` float32; a view.

        Only in a context made with ``embeddings=True`` and a model without pooling.
        """
        return self._view(self._llama.llama_get_embeddings(self._pointer), self.model.n_embd_out)

    def pooled_embedding(self, seq: int) -> Floats:
        """Return the pooled embedding of one sequence, ``(n_embd_out,)`` float32; a copy."""
        pointer = self._llama.llama_get_embeddings_seq(self._pointer, seq)
        if not pointer:
            raise RuntimeFailureError("the model has no pooled embedding")
        return np.array(np.ctypeslib.as_array(pointer, (self.model.n_embd_out,)), np.float32)

    @property
    def pools(self) -> bool:
        """Whether the model pools embeddings into one vector a sequence."""
        return int(self._llama.llama_pooling_type(self._pointer)) > 0

    def _view(self, pointer: Any, width: int) -> Floats:
        if not pointer or not self._rows:
            raise RuntimeFailureError("the last decode asked for no outputs")
        view: Floats = np.ctypeslib.as_array(pointer, (self._rows, width))
        return view

    # memory of sequences

    def clear(self) -> None:
        """Forget every sequence."""
        self._llama.llama_memory_clear(self._memory, False)

    def remove(self, seq: int, start: int = 0) -> bool:
        """Forget a sequence from a position on; False where the memory cannot (hybrid models).

        A hybrid model forgets a whole sequence, or what lies behind a restored state.
        """
        return bool(self._llama.llama_memory_seq_rm(self._memory, seq, start, -1))

    def copy(self, source: int, target: int, stop: int = -1) -> None:
        """Let ``target`` share the first ``stop`` positions of ``source`` (-1: all).

        In a unified context no cell is copied. The convolution state that comes along is the
        source's latest: restore a saved one if ``stop`` lies before it.
        """
        self._llama.llama_memory_seq_cp(self._memory, source, target, 0, stop)

    def length(self, seq: int) -> int:
        """Return how many positions the memory holds for a sequence."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, seq)) + 1

    def save_state(self, seq: int, *, partial: bool = False) -> bytes:
        """Return a sequence's state; ``partial`` leaves out the KV cache.

        For LFM2 the partial state is the convolutions': 4 bytes x 2 x hidden x layers.
        """
        size = self._llama.llama_state_seq_get_size_ext(self._pointer, seq, int(partial))
        data = (ctypes.c_uint8 * size)()
        got = self._llama.llama_state_seq_get_data_ext(self._pointer, data, size, seq, int(partial))
        if got != size:
            raise RuntimeFailureError(f"saving the state of a sequence gave {got} of {size} bytes")
        return bytes(data)

    def load_state(self, seq: int, state: bytes, *, partial: bool = False) -> None:
        """Put a saved state back, as it was saved. Raises :class:`RuntimeFailureError`."""
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        load = self._llama.llama_state_seq_set_data_ext
        if not load(self._pointer, data, len(state), seq, int(partial)):
            raise RuntimeFailureError("a saved state does not fit into this context")


_DECODE_STATUS = {  # llama.h, llama_decode
    2: "decoding was aborted",
    -1: "llama.cpp refused the batch: a token, position or sequence is out of range",
}


class _Batch:
    """A ``llama_batch`` over NumPy arrays, so that filling it is a few slice assignments."""

    def __init__(self, llama: Any, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._pos = np.zeros(capacity, np.int32)
        self._seq = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        # seq_id is a table of pointers: entry i points at element i of _seq
        self._seq_at = (self._seq.ctypes.data + 4 * np.arange(capacity)).astype(np.uintp)
        self.struct = llama.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._pos),
            ("n_seq_id", self._ones),
            ("seq_id", self._seq_at),
            ("logits", self._output),
        ):
            kind = dict(llama.llama_batch._fields_)[name]
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kind))

    def fill(self, chunks: Sequence[Chunk]) -> int:
        """Write the chunks into the arrays and return the number of outputs."""
        total = sum(len(chunk.tokens) for chunk in chunks)
        if not 0 < total <= self.capacity:
            raise OptionError(f"a batch takes 1 to {self.capacity} tokens, not {total}")
        at = 0
        for chunk in chunks:
            stop = at + len(chunk.tokens)
            self._token[at:stop] = chunk.tokens
            self._pos[at:stop] = range(chunk.start, chunk.start + stop - at)
            self._seq[at:stop] = chunk.seq
            self._output[at:stop] = 0
            self._output[stop - chunk.outputs : stop] = 1
            at = stop
        self.struct.n_tokens = total
        return int(self._output[:total].sum())


def default_threads() -> int:
    """Return the physical cores this process may use: decoding gains nothing from SMT."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, (os.cpu_count() or 2) // 2)
    return max(1, len({_core(cpu) for cpu in allowed}))


def _core(cpu: int) -> str:
    """Return a name for the core a logical CPU sits on; Linux names it by its siblings."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text(encoding="ascii") if siblings.exists() else str(cpu)


# --- sampling ------------------------------------------------------------------------------

_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])  # llama_token_data


class Sampler:
    """One request's sampler chain: what it has seen, and how it picks the next token.

    In llama.cpp's own order: logit bias, repetition penalty, top_k, top_p, min_p, temperature,
    seeded draw; at temperature 0 the largest logit. The penalty looks at the last
    ``repeat_window`` accepted tokens. A grammar (GBNF, start symbol ``root``) is asked about
    the token drawn, and filters the whole vocabulary only if it refuses that one.
    """

    def __init__(
        self,
        model: Model,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repeat_penalty: float,
        repeat_window: int,
        seed: int,
        logit_bias: dict[int, float] | None = None,
        grammar: str | None = None,
    ) -> None:
        self._llama = llama = _llama()
        self._chain: Any = None
        self._grammar: Any = None
        if grammar is not None:
            self._grammar = self._compile(model, grammar)
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        bias = logit_bias or {}
        biases = (llama.llama_logit_bias * len(bias))(*bias.items())
        n_vocab = model.n_vocab
        greedy = temperature <= 0
        for wanted, make, arguments in (
            (bias, llama.llama_sampler_init_logit_bias, (n_vocab, len(bias), biases)),
            (
                repeat_penalty != 1 and repeat_window,
                llama.llama_sampler_init_penalties,
                (n_vocab, repeat_window, repeat_penalty, 0.0, 0.0),
            ),
            (greedy, llama.llama_sampler_init_greedy, ()),
            (not greedy and top_k > 0, llama.llama_sampler_init_top_k, (top_k,)),
            (not greedy and top_p < 1, llama.llama_sampler_init_top_p, (top_p, 1)),
            (not greedy and min_p > 0, llama.llama_sampler_init_min_p, (min_p, 1)),
            (not greedy, llama.llama_sampler_init_temp, (temperature,)),
            (not greedy, llama.llama_sampler_init_dist, (seed & 0xFFFFFFFF,)),
        ):
            if wanted:
                llama.llama_sampler_chain_add(self._chain, make(*arguments))
        self._data, self._ids = model._candidates
        self._array = llama.llama_token_data_array()

    def _compile(self, model: Model, grammar: str) -> Any:
        with _captured_log() as log:
            made = self._llama.llama_sampler_init_grammar(model._vocab, grammar.encode(), b"root")
        if not made:
            raise OptionError(f"the grammar does not parse: {_last_words(log)}")
        return made

    def close(self) -> None:
        """Free the chain."""
        for sampler in filter(None, (self._chain, self._grammar)):
            self._llama.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def see(self, tokens: Tokens) -> None:
        """Take prompt tokens into the penalty window."""
        for token in tokens:
            self._llama.llama_sampler_accept(self._chain, token)

    def sample(self, logits: Floats) -> int:
        """Pick, accept and return the next token; ``logits`` is ``(n_vocab,)`` float32.

        Raises :class:`RuntimeFailureError` when bias and grammar leave nothing to pick.
        """
        token, logit = self._draw(logits, None)
        if self._grammar and not self._allows(token):
            token, logit = self._draw(logits, self._grammar)
        if logit == -np.inf:  # accepting it would throw in C++ and end the process
            raise RuntimeFailureError("grammar and logit bias leave no token to continue with")
        self._llama.llama_sampler_accept(self._chain, token)
        if self._grammar:
            self._llama.llama_sampler_accept(self._grammar, token)
        return token

    def _draw(self, logits: Floats, first: Any) -> tuple[int, float]:
        self._data["id"], self._data["logit"] = self._ids, logits
        array = self._candidates(self._data)
        if first:
            self._llama.llama_sampler_apply(first, ctypes.byref(array))
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        picked = array.data[array.selected]
        return int(picked.id), float(picked.logit)

    def _allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], _CANDIDATE)
        array = self._candidates(one)
        self._llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(array.data[0].logit != -np.inf)

    def _candidates(self, data: npt.NDArray[Any]) -> Any:
        array = self._array
        kind = dict(self._llama.llama_token_data_array._fields_)["data"]
        array.data = ctypes.cast(data.ctypes.data, kind)
        array.size, array.selected, array.sorted = len(data), -1, False
        return array


def json_schema_grammar(schema: dict[str, Any]) -> str:
    """Return the GBNF grammar of the JSON texts that a JSON schema allows.

    Raises :class:`OptionError` for a schema with a part that no grammar can express.
    """
    _llama()
    import json

    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except Exception as error:
        raise OptionError(f"the JSON schema cannot be turned into a grammar: {error}") from error
