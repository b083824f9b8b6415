"""Whether the parts of a model fit together, as llama.cpp's loader wants them.

Facts: src/models/lfm2.cpp and src/llama-vocab.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from lfm2gguf.checkpoint import TokenType
from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject
from lfm2gguf.errors import GGUFError
from lfm2gguf.imatrix import read_imatrix
from lfm2gguf.loadable import (
    AGAIN,
    NAMED_TOKENS,
    Contents,
    Problem,
    problems,
    starts_of,
    vocabulary,
)
from lfm2gguf.loadable import types as rule_of_types
from lfm2gguf.members import ARCHITECTURES, member_of
from lfm2gguf.sampling import default_options

LOOKS_SPECIAL = re.compile(r"<\|.*\|>")
RESERVED = re.compile(r"<\|reserved_")  # LFM2's 14 and 15 are plain words of its vocabulary
SHOWN = 3  # tokens that a finding names


def architecture(subject: Subject) -> Iterator[Finding]:
    """Check that it is an LFM2 at all."""
    if subject.kind == "gguf" and subject.architecture not in ARCHITECTURES:
        yield Finding(
            "architecture", Severity.WARNING, "general.architecture",
            f"is {subject.architecture!r}, not {' or '.join(ARCHITECTURES)}: what is particular to "
            "LFM2 was not examined",
            "nothing, if that is what it is meant to be",
        )  # fmt: skip


def loads(subject: Subject) -> Iterator[Finding]:
    """Check what llama.cpp needs to load a model and to compute it."""
    return _found(problems if subject.kind == "gguf" else vocabulary, subject)


def importance(subject: Subject) -> Iterator[Finding]:
    """Check that an importance matrix can be read."""
    try:
        read_imatrix(subject.path)
    except GGUFError as error:
        what = str(error).removeprefix(f"{subject.path}: ")
        yield Finding("importance-matrix", Severity.ERROR, str(subject.path), what, "")


def types(subject: Subject) -> Iterator[Finding]:
    """Check that llama.cpp can compute with each tensor's type."""
    return _found(rule_of_types, subject)


def _found(rule: Callable[[Contents], Iterator[Problem]], subject: Subject) -> Iterator[Finding]:
    types = {tensor.name: tensor.type for tensor in subject.weights if tensor.type is not None}
    starts = starts_of((tensor.path, tensor.offset) for tensor in subject.weights)
    contents = Contents(subject.path, subject.metadata, subject.shapes, types, starts)
    for problem in rule(contents):
        yield Finding(problem.code, Severity.ERROR, problem.where, problem.what, problem.fix)


def token_types(subject: Subject) -> Iterator[Finding]:
    """Check that what looks like a special token is one.

    llama.cpp finds control and user-defined tokens in a prompt before it splits the text
    (``cache_special_tokens``); a normal one is cut to pieces. Control tokens are not printed.
    """
    named = {subject.special(kind) for kind in NAMED_TOKENS} - {""}
    wrong: dict[int, list[str]] = {}
    for text, type in subject.tokens:
        special = (LOOKS_SPECIAL.fullmatch(text) and not RESERVED.match(text)) or text in named
        if special and type != TokenType.CONTROL.value:
            wrong.setdefault(type, []).append(text)
    for type, texts in wrong.items():
        seen = type == TokenType.USER_DEFINED.value
        names = ", ".join(islice(texts, SHOWN)) + (", ..." if len(texts) > SHOWN else "")
        yield Finding(
            "special-token-type", Severity.WARNING if seen else Severity.ERROR,
            "tokenizer.ggml.token_type",
            f"{len(texts)} special tokens have type {type}, not {TokenType.CONTROL.value} "
            f"(control): {names}; llama.cpp "
            + ("prints them into answers" if seen else "cuts them to pieces in a prompt"),
            AGAIN + "; it takes tokens that look like <|...|> for control tokens",
        )  # fmt: skip


def context(subject: Subject) -> Iterator[Finding]:
    """Compare the context that the metadata promises with the one that was trained."""
    trained = member_of(subject).context
    length = subject.own("context_length")
    if subject.architecture in ARCHITECTURES and isinstance(length, int) and length > trained:
        yield Finding(
            "context-length", Severity.WARNING, f"{subject.architecture}.context_length",
            f"is {length}, and the models are trained on {trained} tokens; beyond that answers "
            "lose the thread, and a runner that takes it as its default reserves the memory for it",
            f"run it with a context of at most {trained} (llama.cpp: -c {trained})",
        )  # fmt: skip


def sampling(subject: Subject) -> Iterator[Finding]:
    """Find sampling settings that no sampler takes, for which runners refuse the file."""
    try:
        default_options(subject)
    except GGUFError as error:
        yield Finding(
            "sampling", Severity.WARNING, "general.sampling", str(error),
            "correct generation_config.json, or delete it there, and convert again",
        )  # fmt: skip
