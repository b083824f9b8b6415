"""What one decode is given: tokens of some sequences, as C takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.model import Tokens

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """Tokens to decode for one sequence, the first at position ``start``.

    ``outputs`` counts the trailing tokens whose logits (or embeddings) are wanted. With ``rows``,
    ``(tokens, n_embd)`` float32, these embeddings go into the model in place of the tokens',
    which only count; such a chunk is decoded alone.
    """

    seq: int
    start: int
    tokens: Tokens
    outputs: int = 0
    rows: Floats | None = None


class Batch:
    """A ``llama_batch`` over NumPy arrays, so that filling it is a few slice assignments."""

    def __init__(self, llama: Any, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._pos = np.zeros(capacity, np.int32)
        self._seq = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._upward = np.arange(capacity, dtype=np.int32)
        # seq_id is a table of pointers: entry i points at element i of _seq
        self._seq_at = (self._seq.ctypes.data + 4 * np.arange(capacity)).astype(np.uintp)
        self.struct = llama.llama_batch()
        kinds = dict(llama.llama_batch._fields_)
        self._tokens_at = ctypes.cast(self._token.ctypes.data, kinds["token"])
        self._rows: Floats | None = None  # kept while C may read it
        for name, array in (
            ("pos", self._pos),
            ("n_seq_id", self._ones),
            ("seq_id", self._seq_at),
            ("logits", self._output),
        ):
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kinds[name]))
        self._embd = kinds["embd"]
        self.struct.token, self.struct.embd = self._tokens_at, None
        # entries by themselves: what NumPy needs for one is not in the caches after a decode
        arrays = self._token, self._pos, self._seq, self._output
        self._first = tuple(array.data for array in arrays)

    def fill(self, chunks: Sequence[Chunk]) -> int:
        """Write the chunks into the arrays and return the number of outputs."""
        if len(chunks) == 1 and len(chunks[0].tokens) == 1 and chunks[0].rows is self._rows is None:
            return self._fill_one(chunks[0])
        total = sum(len(chunk.tokens) for chunk in chunks)
        if not 0 < total <= self.capacity:
            raise OptionError(f"a batch takes 1 to {self.capacity} tokens, not {total}")
        at = 0
        for chunk in chunks:
            stop = at + len(chunk.tokens)
            if stop - at == 1 and chunk.rows is None:  # of an answer: slices cost more than values
                self._token[at], self._pos[at] = chunk.tokens[0], chunk.start
                self._seq[at], self._output[at] = chunk.seq, chunk.outputs
                at = stop
                continue
            self._token[at:stop] = chunk.tokens if chunk.rows is None else 0
            np.add(self._upward[: stop - at], chunk.start, out=self._pos[at:stop])
            self._seq[at:stop] = chunk.seq
            self._output[at : stop - chunk.outputs] = 0
            self._output[stop - chunk.outputs : stop] = 1
            at = stop
        self._take_rows(chunks)
        self.struct.n_tokens = total
        return sum(chunk.outputs for chunk in chunks)

    def _fill_one(self, chunk: Chunk) -> int:
        token, pos, seq, output = self._first
        token[0], pos[0] = chunk.tokens[0], chunk.start
        seq[0], output[0] = chunk.seq, chunk.outputs
        self.struct.n_tokens = 1
        return chunk.outputs

    def _take_rows(self, chunks: Sequence[Chunk]) -> None:
        """Point C at tokens or at embeddings: a batch has one or the other."""
        rows = chunks[0].rows
        if any(chunk.rows is not None for chunk in chunks) and len(chunks) > 1:
            raise OptionError("embeddings are decoded alone, not together with other chunks")
        self._rows = None if rows is None else np.ascontiguousarray(rows, np.float32)
        if self._rows is None:
            self.struct.token, self.struct.embd = self._tokens_at, None
        else:
            self.struct.token = None
            self.struct.embd = ctypes.cast(self._rows.ctypes.data, self._embd)
