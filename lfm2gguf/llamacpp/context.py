"""The memory of sequences, and the decoding of tokens into it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from lfm2gguf.errors import ContextError, Lfm2ggufError, OptionError, RuntimeFailureError
from lfm2gguf.llamacpp.batch import Batch, Chunk, Floats
from lfm2gguf.llamacpp.device import default_threads
from lfm2gguf.llamacpp.library import Closed, captured_log, last_words, library, made_by
from lfm2gguf.llamacpp.model import Adapter, Model


class RefusedBatchError(RuntimeFailureError):
    """llama.cpp did not take a batch: one of its chunks is not valid."""


class Context:
    """The memory of one or more sequences, and the decoding of tokens into it.

    ``n_ctx`` counts the cells of the KV cache, which all sequences share when ``unified``;
    otherwise each sequence has its own ``n_ctx / n_seq_max``. One :meth:`decode` takes at
    most ``n_batch`` tokens; the graph runs over ``n_ubatch`` at a time. ``n_outputs`` bounds the
    logits of one decode and so the memory reserved for them (0: ``n_batch``).
    ``flash_attention`` None leaves the choice to llama.cpp; the attribute says what it chose.
    ``rollback`` is how many tokens of a decode :meth:`roll_back` can take back, as the memory
    keeps a convolution state for each (``n_rs_seq``); the attribute says what came of it.
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
        rollback: int = 0,
    ) -> None:
        self._llama = llama = library()
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
        # llama_batch_allocr::split_equal asserts that a ubatch has room for one more than these
        params.n_rs_seq = max(0, min(rollback, params.n_ubatch - 2, n_ctx - 2))
        params.embeddings = embeddings
        params.offload_kqv = params.op_offload = model.offloaded > 0
        params.no_perf = True
        with captured_log() as log:
            make, free = llama.llama_init_from_model, llama.llama_free
            self._pointer = made_by(make, model._pointer, params, free=free)
        if not self._pointer:
            raise RuntimeFailureError(
                f"llama.cpp cannot make a context of {n_ctx} tokens for {model.path}: "
                f"{last_words(log)}; a smaller context needs less memory"
            )
        self._memory = llama.llama_get_memory(self._pointer)
        self.n_ctx = int(llama.llama_n_ctx(self._pointer))
        self.n_batch = int(llama.llama_n_batch(self._pointer))  # never more than n_ctx
        self.n_ubatch = int(llama.llama_n_ubatch(self._pointer))
        self.n_seq_max = n_seq_max
        self.rollback = int(llama.llama_n_rs_seq(self._pointer))
        self._rolled_back: set[int] = set()  # sequences whose older state applies from now on
        self.flash_attention = (
            any("Flash Attention enabled" in line for line in log)
            if flash_attention is None
            else flash_attention
        )
        self._batch = Batch(llama, self.n_batch)
        self._n_outputs = n_outputs or self.n_batch
        self._rows = 0
        place = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)  # as a number
        self._logits_at = ctypes.cast(llama.llama_get_logits, place)
        self._embeddings_at = ctypes.cast(llama.llama_get_embeddings, place)
        self._seen, self._seen_at = np.empty((0, 0), np.float32), (0, 0, 0)  # the view given last
        self._seen_rows: list[Floats] = []

    def close(self) -> None:
        """Free the context. Arrays returned as views are invalid afterwards."""
        if self._pointer:
            self._llama.llama_free(self._pointer)
            self._pointer, self._llama = None, Closed()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use(self, adapter: Adapter | None, scale: float = 1.0) -> None:
        """Apply a LoRA adapter, or none, in the decodes to come."""
        applied = [adapter.pointer] if adapter else []
        pointers = (self._llama.llama_adapter_lora_p_ctypes * 1)(*applied)
        scales = (ctypes.c_float * 1)(scale)
        self._llama.llama_set_adapters_lora(self._pointer, pointers, len(applied), scales)

    # decoding

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Run the model over the chunks, all sequences together.

        Raises:
            ContextError: the memory has no room; it is left as it was.
            RefusedBatchError: a chunk is not valid; nothing was computed, the memory is as it was.
            RuntimeFailureError: the computation failed.
        """
        rows = self._batch.fill(chunks)
        if rows > self._n_outputs:  # llama.cpp asserts, and would take the process down
            raise OptionError(
                f"{rows} outputs asked for in one decode of at most {self._n_outputs}"
            )
        status = self._llama.llama_decode(self._pointer, self._batch.struct)
        if status:
            raise self._failure(status)
        self._rows = rows
        if self._rolled_back:
            self._rolled_back.difference_update(chunk.seq for chunk in chunks)

    def _failure(self, status: int) -> Lfm2ggufError:
        if status == 1:
            return ContextError(f"the context of {self.n_ctx} tokens is full")
        if status == -1:
            return RefusedBatchError(_DECODE_STATUS[status])
        return RuntimeFailureError(_DECODE_STATUS.get(status, f"llama_decode failed: {status}"))

    def logits(self) -> Floats:
        """Return the logits of the last decode, ``(outputs, n_vocab)`` float32, in chunk order.

        A view of C memory, valid until the next decode: copy what must last.
        """
        return self._view(self._logits_at(self._pointer), self.model.n_vocab)

    def logits_of_outputs(self) -> list[Floats]:
        """Return the rows of :meth:`logits`, ``(n_vocab,)`` each, valid as long."""
        self.logits()
        return self._seen_rows

    def embeddings(self) -> Floats:
        """Return the embeddings of the last decode, ``(outputs, n_embd_out)`` float32; a view.

        Only in a context made with ``embeddings=True`` and a model without pooling.
        """
        return self._view(self._embeddings_at(self._pointer), self.model.n_embd_out)

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

    def _view(self, address: int | None, width: int) -> Floats:
        if not address or not self._rows:
            raise RuntimeFailureError("the last decode asked for no outputs")
        place = address, self._rows, width
        if place != self._seen_at:  # it stays where it is from token to token
            room = (ctypes.c_float * (self._rows * width)).from_address(place[0])
            self._seen = np.frombuffer(memoryview(room), np.float32).reshape(self._rows, width)
            self._seen_at, self._seen_rows = place, list(self._seen)
        return self._seen

    # memory of sequences

    def clear(self) -> None:
        """Forget every sequence."""
        self._llama.llama_memory_clear(self._memory, False)
        self._rolled_back.clear()

    def remove(self, seq: int, start: int = 0) -> bool:
        """Forget a sequence from a position on; False where the memory cannot (hybrid models).

        A hybrid model forgets a whole sequence, or what lies behind a restored state.
        """
        self._settle(seq)
        return bool(self._llama.llama_memory_seq_rm(self._memory, seq, start, -1))

    def roll_back(self, seq: int, start: int) -> None:
        """Forget the tokens from ``start`` on, all of which the last decode brought.

        Raises:
            RuntimeFailureError: the memory cannot; they are more than :attr:`rollback`.
        """
        if not self._llama.llama_memory_seq_rm(self._memory, seq, start, -1):
            raise RuntimeFailureError(f"the memory of a sequence cannot go back to {start} tokens")
        self._rolled_back.add(seq)

    def _settle(self, seq: int) -> None:
        """Make the state that a roll-back chose the only one of a sequence.

        Until its next decode llama.cpp only notes which of the states applies
        (``llama_memory_recurrent::set_rs_idx``), and a copy of the sequence would not know it.
        """
        if seq in self._rolled_back:
            self._rolled_back.discard(seq)
            self.load_state(seq, self.save_state(seq, partial=True), partial=True)

    def copy(self, source: int, target: int, stop: int = -1) -> None:
        """Share with ``target`` the first ``stop`` positions of ``source`` (-1: all).

        In a unified context no cell is copied. The convolution state that comes along is the
        source's latest: restore a saved one if ``stop`` lies before it.
        """
        self._settle(source)
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
        """Put a saved state back, as it was saved.

        Raises:
            RuntimeFailureError: it does not fit into this context.
        """
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        self._rolled_back.discard(seq)
        load = self._llama.llama_state_seq_set_data_ext
        if not load(self._pointer, data, len(state), seq, int(partial)):
            raise RuntimeFailureError("a saved state does not fit into this context")


_DECODE_STATUS = {  # llama.h, llama_decode
    2: "decoding was aborted",
    -1: "llama.cpp refused the batch: a token, position or sequence is out of range",
}
