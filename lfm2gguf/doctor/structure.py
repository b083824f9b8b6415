"""Whether the parts of a model fit together, as llama.cpp's loader wants them.

Facts: src/models/lfm2.cpp and src/llama-vocab.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from lfm2gguf.checkpoint import TokenType
from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import LFM2, Subject

AGAIN = "convert the checkpoint again with this version of lfm2gguf"
LOOKS_SPECIAL = re.compile(r"<\|.*\|>")
RESERVED = re.compile(r"<\|reserved_")  # LFM2's 14 and 15 are plain words of its vocabulary
SHOWN = 3  # tokens that a finding names
NAMED_TOKENS = ("bos", "eos", "eot", "padding", "unknown", "seperator", "mask")
# Context that the models were trained on (their model cards); configs say 128,000 throughout.
TRAINED = 32_768
TRAINED_LONG = 131_072  # LFM2.5-8B-A1B: the mixture of experts with the 128,000-token vocabulary


def architecture(subject: Subject) -> Iterator[Finding]:
    """Whether it is an LFM2 at all."""
    if subject.kind == "gguf" and subject.architecture not in LFM2:
        yield Finding(
            "architecture", Severity.WARNING, "general.architecture",
            f"is {subject.architecture!r}, not {' or '.join(LFM2)}: what is particular to LFM2 "
            "was not examined",
            "nothing, if that is what it is meant to be",
        )  # fmt: skip


def feed_forward(subject: Subject) -> Iterator[Finding]:
    """The width that the metadata gives against the one that the weights have."""
    said = subject.own("feed_forward_length")
    if subject.architecture not in LFM2:
        return
    for name, shape in subject.shapes.items():
        if not name.endswith(".ffn_gate.weight"):
            continue
        layer = name.split(".")[1]
        width = said[int(layer)] if isinstance(said, list) and layer.isdecimal() else said
        if width != shape[0]:
            key = f"{subject.architecture}.feed_forward_length"
            yield Finding(
                "feed-forward-width", Severity.ERROR, key,
                f"is {width}, and {name} is {shape[0]} wide; llama.cpp refuses the file",
                f"{AGAIN}, or: gguf-set-metadata {subject.path} {key} {shape[0]}",
            )  # fmt: skip
            return


def norm_name(subject: Subject) -> Iterator[Finding]:
    """The final norm's name: old converters called it ``output_norm``."""
    if subject.architecture not in LFM2 or "token_embd_norm.weight" in subject.shapes:
        return
    if "output_norm.weight" in subject.shapes:
        yield Finding(
            "old-norm-name", Severity.ERROR, "output_norm.weight",
            "is the old name of the final norm; llama.cpp looks for token_embd_norm.weight "
            "and reports a missing tensor",
            AGAIN,
        )  # fmt: skip
    else:
        yield Finding(
            "norm-missing", Severity.ERROR, "token_embd_norm.weight",
            "the final norm is missing; llama.cpp refuses the file", AGAIN,
        )  # fmt: skip


def vocabulary(subject: Subject) -> Iterator[Finding]:
    """One token for each row of the embedding, and ids that exist."""
    n, rows = len(subject.tokens), subject.shapes.get("token_embd.weight", (0,))[0]
    if rows and n and n != rows:
        yield Finding(
            "vocabulary-rows", Severity.ERROR, "token_embd.weight",
            f"has {rows} rows for {n} tokens; llama.cpp wants one for each",
            "resize the embedding (model.resize_token_embeddings(len(tokenizer))), save the "
            "checkpoint, and convert it again",
        )  # fmt: skip
    for kind in NAMED_TOKENS:
        id = subject.number(f"tokenizer.ggml.{kind}_token_id")
        if id is not None and n and not 0 <= id < n:
            yield Finding(
                "token-id", Severity.ERROR, f"tokenizer.ggml.{kind}_token_id",
                f"is {id}, and there are {n} tokens", "correct tokenizer_config.json, and " + AGAIN,
            )  # fmt: skip


def token_types(subject: Subject) -> Iterator[Finding]:
    """What looks like a special token has to be one.

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
    """The context that the metadata promises against the one that was trained."""
    long = subject.architecture == "lfm2moe" and len(subject.tokens) == 128_000
    trained = TRAINED_LONG if long else TRAINED
    length = subject.own("context_length")
    if subject.architecture in LFM2 and isinstance(length, int) and length > trained:
        yield Finding(
            "context-length", Severity.WARNING, f"{subject.architecture}.context_length",
            f"is {length}, and the models are trained on {trained} tokens; beyond that answers "
            "lose the thread, and a runner that takes it as its default reserves the memory for it",
            f"run it with a context of at most {trained} (llama.cpp: -c {trained})",
        )  # fmt: skip
