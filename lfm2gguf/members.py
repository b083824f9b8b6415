"""The LFM2 family as plain data: what each member was trained for, and how it is told.

A fine-tune keeps what its base was trained for, whatever it is called. So a file is placed by its
name and by what a name cannot change: the architecture, the size of the vocabulary, the number of
experts. Sources: the members' model cards and configs on https://huggingface.co/LiquidAI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Protocol

ARCHITECTURES = ("lfm2", "lfm2moe")  # the names that llama.cpp has for them
TRAINED_CONTEXT = 32_768  # tokens, LFM2 and LFM2.5; their configs say 128,000
LARGE_VOCABULARY = 100_000  # tokens: above are the members of 128,000, below those of 65,536

# What a retrieval model was trained to see before a text. A GGUF has no key for them; the cards
# of LFM2.5-Embedding-350M (pooled), and of LFM2-ColBERT-350M and LFM2.5-ColBERT-350M (a vector
# a token), whose prefixes are tokens of their own (PyLate, models/colbert.py).
POOLED_PREFIXES = {"query": "query: ", "document": "document: "}
TOKEN_PREFIXES = {"query": "[Q] ", "document": "[D] "}

_OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
_GREEDY = {**_OFF, "temperature": 0.0}
_LFM2 = {**_OFF, "temperature": 0.3, "min_p": 0.15, "repeat_penalty": 1.05}
_TOP_50 = {**_OFF, "temperature": 0.1, "top_k": 50, "repeat_penalty": 1.05}


class Lookup(Protocol):
    """The keys of a GGUF file: a dict, or anything with its ``get``."""

    def get(self, key: str, default: object, /) -> object:
        """Return the value of a key, or the default."""
        ...


@dataclass(frozen=True)
class Member:
    """What a member was trained for.

    ``context`` is in tokens; ``sampling`` are the options that its card recommends, by the names
    of :class:`lfm2gguf.Options`; ``thinks`` says whether its answers begin with thinking,
    and ``marks_tools`` whether markers stand around the list of tools in its system prompts.
    """

    context: int
    sampling: Mapping[str, float]
    thinks: bool
    marks_tools: bool


@dataclass(frozen=True)
class _Row:
    """Facts about the files that a row describes; None: it says nothing of it.

    A row describes a file whose name has all the ``words``, or one that is ``built`` so.
    """

    words: tuple[str, ...]
    sampling: Mapping[str, float] | None = None
    thinks: bool | None = None
    marks_tools: bool | None = None
    context: int | None = None
    built: Mapping[str, object] = field(default_factory=dict)

    def describes(self, name: str, built: Mapping[str, object]) -> bool:
        """Return whether the row is about a file of this name, built so."""
        named = all(word in name for word in self.words)
        return named or (bool(self.built) and self.built.items() <= built.items())


# Each fact is taken from the first row that describes the file and has it.
_FAMILY = (
    _Row(("extract",), _GREEDY),
    _Row(("-rag",), _GREEDY),
    _Row(("-tool",), _GREEDY),
    _Row(("pii",), _GREEDY),
    _Row(("lfm2.5", "thinking"), {**_TOP_50, "temperature": 0.05}, thinks=True),
    _Row(
        ("lfm2.5", "8b-a1b"),
        {**_TOP_50, "temperature": 0.2, "top_k": 80},
        thinks=True,
        marks_tools=False,
        context=131_072,
        built={"architecture": "lfm2moe", "large vocabulary": True},
    ),
    _Row(("-vl",), {**_LFM2, "temperature": 0.1}, thinks=False),
    _Row(("24b-a2b",), _TOP_50, built={"architecture": "lfm2moe", "experts": 64}),
    _Row(("lfm2.5", "base"), _LFM2),
    _Row(
        ("lfm2.5", "2.6b"),
        _TOP_50,
        thinks=True,
        marks_tools=False,
        built={"architecture": "lfm2", "large vocabulary": True},
    ),
    _Row(("lfm2.5",), _TOP_50, marks_tools=False),
    _Row((), _LFM2, thinks=False, marks_tools=True, context=TRAINED_CONTEXT),
)


def member_of(metadata: Lookup) -> Member:
    """Return what the file with this metadata was trained for."""
    name, built = _name(metadata), _built(metadata)
    rows = [
        row
        for row in _FAMILY
        if all(word in name for word in row.words)
        or (row.built and row.built.items() <= built.items())
    ]
    return Member(
        context=next(row.context for row in rows if row.context is not None),
        sampling=next(row.sampling for row in rows if row.sampling is not None),
        thinks=next(row.thinks for row in rows if row.thinks is not None),
        marks_tools=next(row.marks_tools for row in rows if row.marks_tools is not None),
    )


def trained_context(metadata: Lookup) -> int:
    """Return the tokens that a file can be trusted with: fewer than most files claim."""
    claimed = metadata.get(f"{metadata.get('general.architecture', '')}.context_length", None)
    trained = member_of(metadata).context
    return min(claimed, trained) if isinstance(claimed, int) else trained


def is_retrieval(metadata: Lookup, tensor_names: Iterable[str]) -> bool:
    """Return whether a model embeds texts and does not write them.

    It does if it pools, if its attention looks both ways, or if a dense layer comes after it.
    ``pooling_type`` 0 (LLAMA_POOLING_TYPE_NONE, include/llama.h of llama.cpp, commit 0c1e57098)
    means no pooling, which decides nothing.
    """
    architecture = metadata.get("general.architecture", "")
    return (
        bool(metadata.get(f"{architecture}.pooling_type", 0))
        or metadata.get(f"{architecture}.attention.causal", True) is False
        or any(name.startswith("dense_2.") for name in tensor_names)
    )


def _name(metadata: Lookup) -> str:
    keys = ("name", "basename", "finetune", "size_label")
    joined = "-".join(str(metadata.get(f"general.{key}", "")) for key in keys)
    return re.sub(r"[\s_]+", "-", joined.lower())


def _built(metadata: Lookup) -> dict[str, object]:
    """Return what no name can change."""
    architecture = metadata.get("general.architecture", "")
    tokens = metadata.get("tokenizer.ggml.tokens", None)
    rows = metadata.get(f"{architecture}.vocab_size", 0)
    vocabulary = len(tokens) if isinstance(tokens, Sized) else rows if isinstance(rows, int) else 0
    return {
        "architecture": architecture,
        "experts": metadata.get(f"{architecture}.expert_count", 0),
        "large vocabulary": vocabulary > LARGE_VOCABULARY,
    }
