"""What all files of one run share: the texts, and the reference's states on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import chat_template_notes
from lfm2gguf.errors import OptionError
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import EMBEDDING, RetrievalReference
from lfm2gguf.verification.material import cache
from lfm2gguf.verification.material.conversations import chat_samples
from lfm2gguf.verification.material.models import Ids, ReferenceModel
from lfm2gguf.verification.material.texts import PYTHON, Sample, cut, load_texts, passages
from lfm2gguf.verification.measure.similarity import Vectors

DEFAULT_CHUNKS = 16
DEFAULT_CTX = 512
CHARACTERS = 12  # read for each token that is needed, at first
MARGIN = 64  # tokens
PASSAGE = 128  # tokens, about: what a chunk is cut into for a retrieval model


@dataclass(frozen=True)
class Material:
    """A text or a conversation, tokenized by the reference's own tokenizer."""

    name: str
    encoded: tuple[tuple[str, Ids], ...] = field(repr=False)  # each text with all its ids
    samples: tuple[Sample, ...] = field(repr=False)
    is_chat: bool = False  # the texts begin with BOS as the template writes it
    note: str = ""  # what a user may not expect of it

    def describe(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "name": self.name,
            "sha256": hashlib.sha256("\0".join(t for t, _ in self.encoded).encode()).hexdigest(),
            "tokens": sum(len(ids) for _, ids in self.encoded),
            "chunks": len(self.samples),
            **({"note": self.note} if self.note else {}),
        }


@dataclass(frozen=True)
class Prepared:
    """A reference with its final hidden states on the texts, ready for any number of files."""

    model: ReferenceModel
    materials: tuple[Material, ...]
    ctx: int
    digest: str
    states: npt.NDArray[np.float32] = field(repr=False)
    cached: bool
    seconds: float

    @property
    def samples(self) -> list[Sample]:
        """All sequences, text after text."""
        return [sample for material in self.materials for sample in material.samples]

    @property
    def vectors(self) -> list[Vectors]:
        """A retrieval model's vectors of each sequence."""
        assert isinstance(self.model.forward, RetrievalReference)
        return self.model.forward.vectors(self.states, self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Scored positions of each sequence."""
        return [len(sample.positions) for sample in self.samples]


def prepare(
    model: ReferenceModel,
    texts: Sequence[str | Path] = (),
    *,
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CTX,
    use_cache: bool = True,
    progress: ProgressCallback | None = None,
) -> Prepared:
    """Compute (or find) a reference's hidden states. Arguments as :func:`verify`."""
    if ctx < 16 or (chunks is not None and chunks < 1):
        raise OptionError("a chunk must have 16 tokens or more, and there must be one or more")
    started = time.perf_counter()
    names = texts or ([] if chat else [PYTHON])
    if model.retrieval:
        materials = list(_read_passages(model, names, chunks, ctx, chat))
    else:
        materials = [*_read_texts(model, names, chunks, ctx), *_read_chat(model, chat)]
    samples = [sample for material in materials for sample in material.samples]
    digest = cache.content_digest(model.files)
    entry = cache.key(digest, samples)
    count = sum(len(sample.positions) for sample in samples)
    width = model.weights.shapes[EMBEDDING][1]
    states = cache.load(entry, (count, width)) if use_cache else None
    cached = states is not None
    if states is None:
        states = model.forward.states(
            [sample.ids for sample in samples],
            [sample.positions for sample in samples],
            counting(progress, "reference", "sequences"),
        )
        if use_cache:
            cache.store(entry, states)
    seconds = time.perf_counter() - started
    return Prepared(model, tuple(materials), ctx, digest, states, cached, seconds)


def _read_texts(
    model: ReferenceModel, names: Sequence[str | Path], chunks: int | None, ctx: int
) -> Iterator[Material]:
    for text in load_texts(names):
        content, ids = _encode_enough(model, text.content, chunks and chunks * ctx)
        samples = cut(ids, ctx, chunks, model.bos)
        if not samples:
            raise OptionError(
                f"{text.name} has {len(ids)} tokens, less than one chunk of {ctx}; "
                "give a longer text or a smaller --ctx"
            )
        yield Material(text.name, ((content, ids),), tuple(samples))


def _encode_enough(model: ReferenceModel, content: str, tokens: int | None) -> tuple[str, Ids]:
    """Encode a text, or as much of its beginning as gives the tokens asked for.

    A cut changes the tokens beside it only, so a margin beyond those used makes it harmless.
    """
    start = content[: CHARACTERS * tokens] if tokens else content
    ids = model.encode(start)
    if len(start) < len(content) and tokens and len(ids) < tokens + MARGIN:
        return content, model.encode(content)
    return start, ids


def _read_chat(model: ReferenceModel, path: str | Path | None) -> Iterator[Material]:
    if path is None:
        return
    if not model.is_checkpoint:
        raise OptionError("--chat needs a checkpoint as the reference, for its chat template")
    found = chat_samples(model.path, Path(path))
    encoded = tuple((text, ids) for text, ids, _ in found)
    samples = tuple(sample for _, _, sample in found)
    note = "; ".join(chat_template_notes(model.path))
    yield Material(Path(path).name, encoded, samples, is_chat=True, note=note)


def _read_passages(
    model: ReferenceModel,
    names: Sequence[str | Path],
    chunks: int | None,
    ctx: int,
    chat: str | Path | None,
) -> Iterator[Material]:
    """Queries and documents in turn, as many as have about the tokens asked for."""
    if chat is not None:
        raise OptionError("--chat is for models that answer; this one is for retrieval")
    count = chunks and max(2, chunks * ctx // PASSAGE)
    for text in load_texts(names):
        pairs = passages(text.content, count)
        if len(pairs) < 2:
            raise OptionError(f"{text.name} is too short: ranking takes two passages or more")
        texts = [p + part for pair in pairs for p, part in zip(model.prefixes, pair, strict=True)]
        encoded = [(part, model.encode(part)) for part in texts]
        samples = [Sample(ids, np.arange(len(ids))) for _, ids in encoded]
        yield Material(text.name, tuple(encoded), tuple(samples))
