"""Weights and vocabulary of one file."""

from __future__ import annotations

import ctypes
import functools
import logging
import numbers
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import GGUFError, OptionError, RuntimeFailureError
from lfm2gguf.llamacpp.device import Device
from lfm2gguf.llamacpp.library import (
    Closed,
    captured_log,
    last_words,
    library,
    logger,
    unheard_log,
)
from lfm2gguf.llamacpp.loads import begun, load

Tokens = Sequence[int]
CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])  # llama_token_data


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter of a loaded model."""

    path: Path
    pointer: Any = field(repr=False)


class Model:
    """Weights and vocabulary of one GGUF file.

    ``on`` lists the devices that may hold layers; empty means the CPU alone, whatever the
    build could do. ``gpu_layers`` is how many layers go there (-1: all of them, the output
    layer counting as one). With ``mmap`` weights stay in the file as far as they can (faster to
    load, and shared with other processes); without, they are read, into huge pages where the
    system has them (faster to decode), and whatever becomes of the file does not matter any more.

    ``offloaded`` and ``buffers`` are read from the library's load report, not from what was
    asked: layers on a GPU, and bytes of weights by buffer (``CPU_Mapped``, ``CUDA0``, ...). On
    the CPU alone there is a report only where the logger takes it (at ``DEBUG``).

    Raises:
        GGUFError: llama.cpp cannot load the file; the message holds its own last words.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        on: Sequence[Device] = (),
        gpu_layers: int = -1,
        *,
        mmap: bool = True,
    ) -> None:
        self._llama = library()
        self._pointer: Any = None
        self.path = Path(path)
        log: list[str] = []
        if not on and (ahead := begun(self.path, mmap=mmap)):
            self._pointer = ahead()
        elif not on and not logger.isEnabledFor(logging.DEBUG):
            with unheard_log(), load(self.path, on, gpu_layers, mmap=mmap) as loaded:
                self._pointer = loaded()
        if not self._pointer:  # that is, if it failed, once more for the reason
            with captured_log() as log, load(self.path, on, gpu_layers, mmap=mmap) as loaded:
                self._pointer = loaded()
        if not self._pointer:
            raise GGUFError(f"{self.path}: llama.cpp cannot load it: {last_words(log)}")
        self.vocab = self._llama.llama_model_get_vocab(self._pointer)
        self.offloaded = _first_int(r"offloaded (\d+)/\d+ layers", log)
        self.buffers = _buffer_sizes(log)
        self.metadata = self._metadata()
        self.n_vocab = int(self._llama.llama_vocab_n_tokens(self.vocab))
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
            self._pointer, self._llama = None, Closed()

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
        return buffer.value.decode("utf-8", "replace")

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the file's default chat template, or one by its name; None if it lacks it.

        Raises:
            GGUFError: it is not UTF-8.
        """
        wanted = None if name is None else name.encode()
        text = self._llama.llama_model_chat_template(self._pointer, wanted)
        try:
            return text.decode() if text else None
        except UnicodeDecodeError as error:
            raise GGUFError(f"{self.path}: its chat template is not UTF-8 ({error})") from error

    def load_adapter(self, path: str | os.PathLike[str]) -> Adapter:
        """Load a LoRA adapter, freed with the model; before a context is made, which makes room.

        Raises:
            GGUFError: the file is not an adapter, or does not fit this model.
        """
        with captured_log() as log:
            pointer = self._llama.llama_adapter_lora_init(self._pointer, os.fsencode(path))
        if not pointer:
            raise GGUFError(f"{path}: llama.cpp cannot apply it to {self.path}: {last_words(log)}")
        return Adapter(Path(path), pointer)

    # vocabulary

    @functools.cached_property
    def candidates(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """Room for one draw, shared by all samplers: they work one after another."""
        return np.empty(self.n_vocab, CANDIDATE), np.arange(self.n_vocab, dtype=np.int32)

    @property
    def bos(self) -> int:
        """The id of the beginning-of-text token, or -1."""
        return int(self._llama.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> int:
        """The id of the end-of-turn token, or -1."""
        return int(self._llama.llama_vocab_eos(self.vocab))

    @property
    def adds_bos(self) -> bool:
        """Whether the file asks for BOS before a plain text."""
        return bool(self._llama.llama_vocab_get_add_bos(self.vocab))

    def ends_generation(self, token: int) -> bool:
        """Tell whether the token ends an answer (EOS, EOT and the like)."""
        return bool(self._llama.llama_vocab_is_eog(self.vocab, token))

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return tuple(filter(self.ends_generation, range(self.n_vocab)))

    def token_text(self, token: int) -> str:
        """Return the vocabulary's entry for a token, as the file spells it."""
        return str(self._llama.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace"))

    def tokenize(self, text: str, *, bos: bool = False, special: bool = True) -> list[int]:
        """Return the token ids of a text.

        ``bos`` puts BOS in front where the file asks for one; ``special`` lets markers such
        as ``<|im_start|>`` become their single token instead of plain text.
        """
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 2
        ids = (ctypes.c_int32 * room)()
        tokenize = self._llama.llama_tokenize
        count = tokenize(self.vocab, data, len(data), ids, room, bos, special)
        if count < 0:
            raise RuntimeFailureError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")
        return ids[:count]

    def checked(self, tokens: Tokens) -> list[int]:
        """Return token ids that are in the vocabulary.

        Raises:
            OptionError: one is not, or it is no whole number.
        """
        if isinstance(tokens, bytes | bytearray):  # whose items are numbers, too
            raise OptionError("bytes are neither a text nor token ids: decode them")
        given = list(tokens)
        for token in given:
            if not (_is_whole(token) and 0 <= token < self.n_vocab):
                raise OptionError(f"{token!r} is not a token id (0 to {self.n_vocab - 1})")
        return [int(token) for token in given]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token: part of a character, perhaps. Markers only if asked."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._llama.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def detokenize(self, tokens: Tokens, *, special: bool = False) -> str:
        """Return the text of tokens; bytes that are not UTF-8 become U+FFFD."""
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


def _is_whole(value: object) -> bool:
    return type(value) is int or (
        isinstance(value, numbers.Integral) and not isinstance(value, bool)
    )
