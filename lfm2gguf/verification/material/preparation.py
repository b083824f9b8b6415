"""What all files of one run share: the texts, and the reference's states on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import chat_template_notes
from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import check_numbers
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import EMBEDDING, RetrievalReference
from lfm2gguf.several import several
from lfm2gguf.storage import check_unchanged
from lfm2gguf.verification.material import cache
from lfm2gguf.verification.material.conversations import chat_samples
from lfm2gguf.verification.material.models import Ids, ReferenceModel
from lfm2gguf.verification.material.texts import PYTHON, Sample, cut, load_texts, passages
from lfm2gguf.verification.measure.similarity import Vectors

DEFAULT_CHUNKS = 16
DEFAULT_CTX = 512
MIN_CTX = 16
CHARACTERS = 12  # read for each token that is needed, at first
MARGIN = 64  # tokens
PASSAGE = 128  # tokens, about: what a chunk is cut into for a retrieval model


@dataclass(frozen=True)
class Material:
    """What files are judged on.

    Args:
        texts: UTF-8 files, or ``wikitext-2``; by default a text from Python's own documentation,
            which is a smoke test.
        chat: a file of conversations as JSON (messages, ShareGPT, Alpaca, prompt and completion),
            scored on the assistant's tokens.
        chunks: how many chunks of each text (None: all).
        ctx: tokens of a chunk; the second half of each is scored. For a retrieval model, chunks
            are cut into queries and documents.
        cache: keep the reference's hidden states for the next run.

    """

    texts: str | Path | Iterable[str | Path] = ()
    chat: str | Path | None = None
    chunks: int | None = DEFAULT_CHUNKS
    ctx: int = DEFAULT_CTX
    cache: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", several(self.texts))
        check_numbers(type(self).__annotations__, vars(self))
        if self.ctx < MIN_CTX:
            raise OptionError(f"ctx (--ctx) is {self.ctx}; a chunk has {MIN_CTX} tokens or more")
        if self.chunks is not None and self.chunks < 1:
            raise OptionError(f"chunks (--chunks) is {self.chunks}; give 1 or more, None for all")

    @property
    def names(self) -> tuple[str | Path, ...]:
        """The texts, of which there may be one, as they are kept."""
        return cast("tuple[str | Path, ...]", self.texts)


@dataclass(frozen=True)
class EncodedText:
    """A text or conversations, tokenized by the reference's own tokenizer."""

    name: str
    encoded: tuple[tuple[str, Ids], ...] = field(repr=False)  # each text with all its ids
    samples: tuple[Sample, ...] = field(repr=False)
    is_chat: bool = False  # the texts begin with BOS as the template writes it
    note: str = ""  # what a user may not expect of it

    def describe(self) -> dict[str, Any]:
        """Return what a report says about it."""
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
    texts: tuple[EncodedText, ...]
    ctx: int
    digest: str
    states: npt.NDArray[np.float32] = field(repr=False)
    cached: bool
    seconds: float

    @property
    def samples(self) -> list[Sample]:
        """All sequences, text after text."""
        return [sample for text in self.texts for sample in text.samples]

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
    model: ReferenceModel, material: Material, progress: ProgressCallback | None = None
) -> Prepared:
    """Compute a reference's hidden states on the texts, or find them in the cache.

    Raises:
        OptionError: a text cannot be read, is too short, or does not go with this model.
        HubError: a text could not be fetched.
        TensorError: the reference was written or removed meanwhile.

    """
    started = time.perf_counter()
    texts = list((_read_passages if model.retrieval else _read_texts)(model, material))
    samples = [sample for text in texts for sample in text.samples]
    digest = cache.content_digest(model.files)
    entry = cache.key(digest, samples)
    count = sum(len(sample.positions) for sample in samples)
    width = model.weights.shapes[EMBEDDING][1]
    states = cache.load(entry, (count, width)) if material.cache else None
    cached = states is not None
    if states is None:
        states = model.forward.states(
            [sample.ids for sample in samples],
            [sample.positions for sample in samples],
            counting(progress, "reference", "layers"),
        )
        check_unchanged(model.stamps)
        if material.cache:
            cache.store(entry, states)
    seconds = time.perf_counter() - started
    return Prepared(model, tuple(texts), material.ctx, digest, states, cached, seconds)


def _names(material: Material) -> Sequence[str | Path]:
    return material.names or ([] if material.chat else [PYTHON])


def _read_texts(model: ReferenceModel, material: Material) -> Iterator[EncodedText]:
    chunks, ctx = material.chunks, material.ctx
    for text in load_texts(_names(material)):
        content, ids = _encode_enough(model, text.content, chunks and chunks * ctx)
        samples = cut(ids, ctx, chunks, model.bos)
        if not samples:
            raise OptionError(
                f"{text.name}: has {len(ids)} tokens, less than one chunk of {ctx}; "
                "give a longer text or a smaller ctx (--ctx)"
            )
        yield EncodedText(text.name, ((content, ids),), tuple(samples))
    if material.chat is not None:
        yield _read_chat(model, Path(material.chat))


def _encode_enough(model: ReferenceModel, content: str, tokens: int | None) -> tuple[str, Ids]:
    """Encode a text, or as much of its beginning as gives the tokens asked for.

    A cut changes the tokens beside it only, so a margin beyond those used makes it harmless.
    """
    start = content[: CHARACTERS * tokens] if tokens else content
    ids = model.encode(start)
    if len(start) < len(content) and tokens and len(ids) < tokens + MARGIN:
        return content, model.encode(content)
    return start, ids


def _read_chat(model: ReferenceModel, path: Path) -> EncodedText:
    if not model.is_checkpoint:
        raise OptionError(
            f"{model.path}: is a GGUF; chat (--chat) needs a checkpoint as the reference, for its "
            "chat template"
        )
    found = chat_samples(model.path, path)
    encoded = tuple((text, ids) for text, ids, _ in found)
    samples = tuple(sample for _, _, sample in found)
    note = "; ".join(chat_template_notes(model.path))
    return EncodedText(path.name, encoded, samples, is_chat=True, note=note)


def _read_passages(model: ReferenceModel, material: Material) -> Iterator[EncodedText]:
    """Yield queries and documents in turn, as many as have about the tokens asked for."""
    if material.chat is not None:
        raise OptionError(
            f"{model.name}: is a retrieval model; chat (--chat) is for models that answer"
        )
    count = material.chunks and max(2, material.chunks * material.ctx // PASSAGE)
    for text in load_texts(_names(material)):
        pairs = passages(text.content, count)
        if len(pairs) < 2:
            raise OptionError(
                f"{text.name}: is too short; ranking takes two passages or more, give a longer text"
            )
        texts = [p + part for pair in pairs for p, part in zip(model.prefixes, pair, strict=True)]
        encoded = [(part, model.encode(part)) for part in texts]
        samples = [Sample(ids, np.arange(len(ids))) for _, ids in encoded]
        yield EncodedText(text.name, tuple(encoded), tuple(samples))
