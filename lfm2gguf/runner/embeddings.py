"""Embeddings: one vector a text, or one a token, of the members made for retrieval."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence

import numpy as np

from lfm2gguf.errors import ContextError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Chunk, Context, Floats, Model
from lfm2gguf.members import POOLED_PREFIXES, TOKEN_PREFIXES, is_retrieval
from lfm2gguf.runner.engine.scheduler import Scheduler

LONGEST = 2048  # tokens of a text; a bidirectional model reads it in one piece


def maxsim(query: Floats, document: Floats) -> float:
    """Return ColBERT's score of two texts, ``(tokens, width)`` each.

    For each token of the query the largest dot product with one of the document, summed
    (Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832).
    """
    return float((query @ document.T).max(axis=1).sum())


class Embeddings:
    """The vectors of a model made for retrieval, as :attr:`Runner.embeddings` offers them."""

    def __init__(self, embedder: Embedder, scheduler: Scheduler) -> None:
        self._embedder, self._scheduler = embedder, scheduler

    def __call__(
        self,
        texts: str | Sequence[str | Sequence[int]],
        *,
        kind: str | None = None,
        normalize: bool = True,
    ) -> list[Floats]:
        """Embed texts, or token ids of the file's own, with a model made for it.

        Returns float32, one array a text: ``(width,)`` where the file names a pooling,
        ``(tokens, width)`` for ColBERT members, which :func:`maxsim` compares. ``kind`` puts the
        model's prefix for a ``query`` or a ``document`` in front; of a document for ColBERT the
        vectors of punctuation are left out, as PyLate does. Vectors have length 1 unless
        ``normalize`` is False.

        Raises:
            UnsupportedError: the model is not made for retrieval.
            ContextError: a text is too long.
            OptionError: ``kind`` is unknown.
        """
        self._scheduler.check_usable()
        self._embedder.check(kind)
        embed = functools.partial(self._embedder.embed, kind=kind, normalize=normalize)
        given = [texts] if isinstance(texts, str) else texts
        return [self._scheduler.call(functools.partial(embed, text)) for text in given]


class Embedder:
    """A context for embeddings, made at the first use. One thread drives it."""

    def __init__(self, model: Model, file: GGUFFile, threads: int | None) -> None:
        self._model, self._threads = model, threads
        self._for_retrieval = is_retrieval(file, file.tensors)
        self._context: Context | None = None

    def check(self, kind: str | None) -> None:
        """Check that texts of this kind can be embedded.

        Raises:
            UnsupportedError: the model is not made for retrieval.
            OptionError: ``kind`` is unknown.
        """
        if not self._for_retrieval:
            raise UnsupportedError(
                f"{self._model.path.name}: this model is made to write, not for embeddings; use a "
                "member such as LFM2.5-Embedding-350M or LFM2-ColBERT-350M"
            )
        if kind is not None and kind not in POOLED_PREFIXES:
            raise OptionError(f"kind is {kind!r}: it must be 'query', 'document' or None")

    def embed(self, text: str | Sequence[int], kind: str | None, *, normalize: bool) -> Floats:
        """Return ``(width,)`` where the model pools, else ``(tokens, width)``."""
        context = self._context = self._context or self._make()
        x = self._one(context, text, kind)
        return x / np.linalg.norm(x, axis=-1, keepdims=True) if normalize else x

    def _make(self) -> Context:
        return Context(
            self._model,
            n_ctx=LONGEST,
            n_batch=LONGEST,
            n_ubatch=LONGEST,
            threads=self._threads,
            embeddings=True,
        )

    def _one(self, context: Context, text: str | Sequence[int], kind: str | None) -> Floats:
        prefixes = POOLED_PREFIXES if context.pools else TOKEN_PREFIXES
        prefix = prefixes.get(kind or "", "")
        if isinstance(text, str):
            tokens = self._model.tokenize(prefix + text, bos=True)
        else:
            given = self._model.checked(text)
            given = given[1:] if given[:1] == [self._model.bos] else given
            tokens = self._model.tokenize(prefix, bos=True) + given
        if len(tokens) > LONGEST:
            raise ContextError(f"a text has {len(tokens)} tokens, more than {LONGEST}: split it")
        context.clear()
        context.decode([Chunk(0, 0, tokens, outputs=len(tokens))])
        if context.pools:
            return context.pooled_embedding(0)
        skipped = self._punctuation if kind == "document" else frozenset()
        return context.embeddings()[[token not in skipped for token in tokens]]

    @functools.cached_property
    def _punctuation(self) -> frozenset[int]:
        """Tokens of a document that match no query: PyLate's skiplist, ASCII's punctuation."""
        tokens = (self._model.tokenize(mark) for mark in string.punctuation)
        return frozenset(ids[0] for ids in tokens if len(ids) == 1)

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._context.close()
