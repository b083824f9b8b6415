"""What a model is calibrated on: texts in chunks, conversations in its own template."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.errors import OptionError
from lfm2gguf.reference import EMBEDDING, Ids
from lfm2gguf.several import several
from lfm2gguf.verification import ReferenceModel, chat_samples, cut, load_texts, passages

DEFAULT_CHUNKS = 128
PASSAGE = 128  # tokens, about, of a retrieval model's query and document
OWN_TOKENS = 128  # of a text that the checkpoint writes itself
OWN_TEXT = 1.0  # such tokens for each of the text that they join
BUNDLED = "bundled"
DOCUMENTATION, CODE = 5, 3  # shares of the bundled mixture's chunks; the rest is conversations
# Modules of Python whose sources are code to calibrate on: prose-like, algorithmic, data-heavy.
MODULES = (
    "argparse", "ast", "collections", "csv", "dataclasses", "datetime", "decimal", "difflib",
    "email.message", "fractions", "http.client", "json.decoder", "logging", "statistics",
    "tarfile", "textwrap", "typing", "urllib.parse", "zipfile",
)  # fmt: skip


@dataclass(frozen=True)
class CalibrationMaterial:
    """Token ids (each a text of its own), and where they come from.

    ``own`` more are for the checkpoint to write: see :mod:`lfm2gguf.calibration.own_text`.
    """

    names: tuple[str, ...]
    sequences: tuple[Ids, ...] = field(repr=False)
    digest: str  # SHA-256 of the given texts' ids
    own: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in all sequences, with those that are still to be written."""
        return sum(map(len, self.sequences)) + self.own * OWN_TOKENS

    def __add__(self, other: CalibrationMaterial) -> CalibrationMaterial:
        """Return both, one after the other."""
        return _material(self.names + other.names, [*self.sequences, *other.sequences])

    def split(self, held_out: int) -> tuple[CalibrationMaterial, CalibrationMaterial]:
        """Return two parts: the second has every ``held_out``-th sequence."""
        kept = [s for i, s in enumerate(self.sequences) if i % held_out != held_out - 1]
        rest = [s for i, s in enumerate(self.sequences) if i % held_out == held_out - 1]
        return _material(self.names, kept), _material(self.names, rest)


def calibration_material(
    model: ReferenceModel,
    texts: str | Path | Iterable[str | Path] = (),
    *,
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
) -> CalibrationMaterial:
    """Tokenize texts and conversations with the model's own tokenizer and template.

    Arguments as :func:`~lfm2gguf.calibration.collect_imatrix`.

    Raises:
        OptionError: a text cannot be read, or gives less than one chunk.

    """
    if ctx < 32 or (chunks is not None and chunks < 1):
        raise OptionError("ctx (--ctx): at least 32 tokens; chunks (--chunks): at least one")
    names, sequences = list[str](), list[Ids]()
    if chat is not None and model.retrieval:
        raise OptionError(
            f"{model.name}: is a retrieval model; chat (--chat) is for models that answer"
        )
    for name, content, most in _contents(several(texts), chat is None, chunks):
        found = _sequences(model, content, ctx, most)
        if not found:
            raise OptionError(
                f"{name}: is less than one chunk of {ctx} tokens; give a longer text or a smaller "
                "ctx (--ctx)"
            )
        names.append(name)
        sequences += found
    if chat is not None:
        names.append(Path(chat).name)
        sequences += [sample.ids for _, _, sample in chat_samples(model.path, Path(chat))]
    return _material(tuple(names), sequences)


def in_company(
    model: ReferenceModel, material: CalibrationMaterial, ctx: int, own_text: float
) -> CalibrationMaterial:
    """Let other text join ``material``: moments of one domain alone do harm in others.

    It is the checkpoint's own, ``own_text`` tokens for each of the text's (examples/fidelity has
    what else was tried). A retrieval model writes none: an eighth each of tokens drawn at random,
    bundled code and conversations join its text.
    """
    if not model.retrieval:
        own = round(material.tokens * own_text / OWN_TOKENS)
        if not own:
            return material
        return replace(material, names=(*material.names, "the checkpoint's own text"), own=own)
    each = max(1, material.tokens // ctx // 8)
    names, sequences = ["random tokens"], _random(model, each, ctx)
    for name, content in (("Python's library", _code()), ("conversations", _conversations())):
        names.append(f"{BUNDLED}: {name}")
        sequences += _sequences(model, content, ctx, each)
    return material + _material(tuple(names), sequences)


def _random(model: ReferenceModel, count: int, ctx: int) -> list[Ids]:
    """Return chunks of tokens of the whole vocabulary, always the same for one vocabulary."""
    drawn = (
        np.random.default_rng(0)
        .integers(0, model.weights.shapes[EMBEDDING][0], (count, ctx))
        .astype(np.int32)
    )
    if model.bos is not None:
        drawn[:, 0] = model.bos
    return list(drawn)


def _sequences(model: ReferenceModel, content: str, ctx: int, most: int | None) -> list[Ids]:
    """Cut a text into chunks; for a retrieval model into queries and documents of the same size."""
    if not model.retrieval:
        return [sample.ids for sample in cut(model.encode(content), ctx, most, model.bos)]
    pairs = passages(content, most and max(2, most * ctx // PASSAGE))
    return [
        model.encode(prefix + parts[i])
        for i, prefix in enumerate(model.prefixes)
        for parts in pairs
    ]


def _contents(
    texts: Sequence[str | Path], bundle: bool, chunks: int | None
) -> Iterator[tuple[str, str, int | None]]:
    """Give each text's name, the text, and how many chunks of it are used."""
    for text in load_texts(texts):
        yield text.name, text.content, chunks
    if texts or not bundle:
        return
    whole = chunks or DEFAULT_CHUNKS
    [documentation] = load_texts(["python-docs"])
    first = max(1, whole * DOCUMENTATION // 10)
    yield f"{BUNDLED}: Python's documentation", documentation.content, first
    second = max(1, whole * CODE // 10)
    yield f"{BUNDLED}: Python's library", _code(), second
    rest = max(1, whole - first - second)
    yield f"{BUNDLED}: conversations", _conversations(), rest


def _code() -> str:
    return "\n\n".join(inspect.getsource(import_module(name)) for name in MODULES)


def _conversations() -> str:
    """Return turns in several languages, with tools, in the family's own markers."""
    lines = (files("lfm2gguf.calibration") / "conversations.jsonl").read_text("utf-8").splitlines()
    return "\n".join(_rendered(json.loads(line)) for line in lines)


def _rendered(turns: list[list[str]]) -> str:
    start, end = LFM2.turn
    return "".join(f"{start}{role}\n{text}{end}\n" for role, text in turns)


def _material(names: tuple[str, ...], sequences: Sequence[Ids]) -> CalibrationMaterial:
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(np.array([len(ids)], "<i8").tobytes())
        digest.update(ids.astype("<i4").tobytes())
    return CalibrationMaterial(names, tuple(sequences), digest.hexdigest())
