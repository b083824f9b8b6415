"""Whether the parts of a model fit together, as llama.cpp's loader wants them.

Facts: src/models/lfm2.cpp and src/llama-vocab.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from lfm2gguf.checkpoint import TokenType
from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject
from lfm2gguf.lfm2 import Keys
from lfm2gguf.members import ARCHITECTURES, member_of

Shape = tuple[int, ...]

EMBEDDING, NORM, OLD_NORM = "token_embd.weight", "token_embd_norm.weight", "output_norm.weight"
WIDTH = "feed-forward-width"
# Keys that give one axis of a tensor its length.
LENGTHS = {
    "embedding_length": (NORM, 0),
    "feed_forward_length": (".ffn_gate.weight", 0),
    "shortconv.l_cache": (".shortconv.conv.weight", 1),
    "expert_count": (".ffn_gate_inp.weight", 0),
    "expert_feed_forward_length": (".ffn_gate_exps.weight", 1),
}
AGAIN = "convert the checkpoint again with this version of lfm2gguf"
LOOKS_SPECIAL = re.compile(r"<\|.*\|>")
RESERVED = re.compile(r"<\|reserved_")  # LFM2's 14 and 15 are plain words of its vocabulary
SHOWN = 3  # tokens that a finding names
NAMED_TOKENS = ("bos", "eos", "eot", "padding", "unknown", "seperator", "mask")


def architecture(subject: Subject) -> Iterator[Finding]:
    """Check that it is an LFM2 at all."""
    if subject.kind == "gguf" and subject.architecture not in ARCHITECTURES:
        yield Finding(
            "architecture", Severity.WARNING, "general.architecture",
            f"is {subject.architecture!r}, not {' or '.join(ARCHITECTURES)}: what is particular to "
            "LFM2 was not examined",
            "nothing, if that is what it is meant to be",
        )  # fmt: skip


def needed_keys(subject: Subject) -> Iterator[Finding]:
    """Check the keys that llama.cpp needs."""
    if subject.kind == "gguf" and subject.architecture in ARCHITECTURES:
        for key, what in Keys(subject.architecture, subject.metadata).problems().items():
            yield Finding(
                "metadata-key", Severity.ERROR, key, f"{what}; llama.cpp refuses the file", AGAIN
            )


def tensors(subject: Subject) -> Iterator[Finding]:
    """Compare names and shapes with those that the keys call for, as llama.cpp does."""
    if subject.kind != "gguf" or subject.architecture not in ARCHITECTURES:
        return
    keys = Keys(subject.architecture, subject.metadata)
    if keys.problems():
        return  # they have been said
    there = {name: _trimmed(shape) for name, shape in subject.shapes.items()}
    # One row for each token: see vocabulary.
    n_vocab = there.get(EMBEDDING, (0,))[0] if subject.tokens else keys.number("vocab_size")
    needed, optional = keys.tensors(n_vocab)
    if NORM not in there and there.pop(OLD_NORM, ()):
        needed.pop(NORM)
        yield Finding(
            "old-norm-name", Severity.ERROR, OLD_NORM,
            f"is the old name of the final norm; llama.cpp looks for {NORM} and reports a "
            "missing tensor",
            AGAIN,
        )  # fmt: skip
    if missing := [name for name in needed if name not in there]:
        yield Finding(
            "tensor-missing", Severity.ERROR, _and_more(missing),
            "the metadata calls for it, and it is missing; llama.cpp refuses the file",
            f"{AGAIN}; if tensors are unknown too, the keys are another model's",
        )  # fmt: skip
    known = needed | optional
    if unknown := [name for name in there if name not in known]:
        yield Finding(
            "tensor-unknown", Severity.ERROR, _and_more(unknown),
            "has no place in what the metadata describes; llama.cpp refuses the file",
            f"{AGAIN}; if tensors are missing too, the keys are another model's",
        )  # fmt: skip
    yield from _shapes(subject, keys, {
        name: (shape, there[name])
        for name, shape in known.items()
        if name in there and _trimmed(shape) != there[name]
    })  # fmt: skip


def _shapes(
    subject: Subject, keys: Keys, wrong: Mapping[str, tuple[Shape, Shape]]
) -> Iterator[Finding]:
    """Blame tensors of another shape (called for, there) on a key, where one alone is wrong."""
    blamed = False
    for key, (suffix, axis) in LENGTHS.items():
        name = next((name for name in wrong if name.endswith(suffix)), "")
        called, found = wrong.get(name, ((), ()))
        if len(called) == len(found) > axis and called[axis] != found[axis]:
            blamed, full = True, f"{subject.architecture}.{key}"
            yield Finding(
                WIDTH if key == "feed_forward_length" else "tensor-shape", Severity.ERROR, full,
                f"is {keys.number(key)}, and {name} is {found[axis]} wide; llama.cpp refuses "
                "the file",
                f"{AGAIN}, or: gguf-set-metadata {subject.path} {full} {found[axis]}",
            )  # fmt: skip
    if wrong and not blamed:
        name, (called, found) = next(iter(wrong.items()))
        yield Finding(
            "tensor-shape", Severity.ERROR, _and_more(list(wrong)),
            f"is {_dims(found)}, and the metadata calls for {_dims(called)}; llama.cpp refuses the "
            "file",
            f"{AGAIN}, or correct {subject.architecture}.attention.head_count and the other keys",
        )  # fmt: skip


def _trimmed(shape: Shape) -> Shape:
    """Drop leading ones, which llama.cpp does not distinguish."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _dims(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _and_more(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def vocabulary(subject: Subject) -> Iterator[Finding]:
    """Check that each row of the embedding has a token, and that named ids exist."""
    n, rows = len(subject.tokens), subject.shapes.get(EMBEDDING, (0,))[0]
    if rows and n and n != rows:
        yield Finding(
            "vocabulary-rows", Severity.ERROR, EMBEDDING,
            f"has {rows} rows for {n} tokens; llama.cpp wants one for each",
            "resize the embedding (model.resize_token_embeddings(len(tokenizer))), save the "
            "checkpoint, and convert it again",
        )  # fmt: skip
    if twice := [
        text for text, times in Counter(t for t, _ in subject.tokens).items() if times > 1
    ]:
        yield Finding(
            "token-twice", Severity.ERROR, "tokenizer.ggml.tokens",
            f"has {_and_more([repr(text) for text in twice])} more than once; llama.cpp ends the "
            "process (GGML_ASSERT in src/llama-vocab.cpp)",
            "take the later one out of tokenizer.json or tokenizer_config.json, and " + AGAIN,
        )  # fmt: skip
    for kind in NAMED_TOKENS:
        id = subject.number(f"tokenizer.ggml.{kind}_token_id")
        if id is not None and n and not 0 <= id < n:
            yield Finding(
                "token-id", Severity.ERROR, f"tokenizer.ggml.{kind}_token_id",
                f"is {id}, and there are {n} tokens", "correct tokenizer_config.json, and " + AGAIN,
            )  # fmt: skip


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
