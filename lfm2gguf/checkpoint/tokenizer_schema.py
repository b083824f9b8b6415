"""What tokenizer.json can say and llama.cpp cannot do: told, or refused.

The fields are those of Hugging Face's tokenizers 0.22 (``src/tokenizer/serialization.rs`` and the
modules' own). llama.cpp's side is ``llm_tokenizer_bpe`` and ``tokenizer_st_partition`` in
src/llama-vocab.cpp, commit 0c1e57098: text is cut at added tokens, split, and merged as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lfm2gguf.errors import CheckpointError, UnsupportedError

Json = Mapping[str, Any]
# Decided, and nothing to say: they are converted, or have no effect on tokens of a byte-level
# BPE. transformers ignores truncation and padding when it loads the file.
# Of the file: version, truncation, padding, pre_tokenizer (recognised), added_tokens.
# Of the model: vocab, merges, type; byte_fallback, unk_token, fuse_unk (every byte is a token);
# ignore_merges (llama.cpp sets it for this family, whose own files do not).
# Of an added token: id, content, special; normalized (counts only where there is a normalizer).

# Normalizers that change almost any text, and how often the others do.
ALWAYS = {
    "Lowercase": "all capital letters", "Prepend": "the beginning of every text",
    "BertNormalizer": "capital letters, accents and spaces", "ByteLevel": "every text",
}  # fmt: skip
SOMETIMES = {
    "NFC": "text with separate accents", "NFD": "text with accents",
    "NFKC": "text with compatibility characters, such as ligatures and full-width letters",
    "NFKD": "text with accents or compatibility characters",
    "Strip": "text that begins or ends with spaces", "StripAccents": "text with accents",
    "Nmt": "text with control characters", "Replace": "text that its pattern fits",
    "Precompiled": "text with what its table replaces",
}  # fmt: skip
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
SIDES = {
    "lstrip": "take the spaces before them",
    "rstrip": "take the spaces behind them",
    "single_word": "count only as whole words",
}
NOT_DONE = "which llama.cpp does not do"
TRAINED = "if the model was trained with the base model's tokenizer, copy that tokenizer.json"


def tokenizer_notes(path: Path, data: Json) -> tuple[str, ...]:
    """Return what of a tokenizer.json can change tokens and is not in a GGUF.

    ``path`` is for messages, ``data`` what the file holds: it is megabytes, and parsed once.

    Raises:
        CheckpointError: a part is damaged.
        UnsupportedError: something that changes almost every text.

    """
    checks: tuple[Callable[[Path, Json], Iterator[str]], ...] = (
        _normalizer, _affixes, _dropout, _added_tokens, _post_processor, _decoder,
    )  # fmt: skip
    try:
        return tuple(note for check in checks for note in check(path, data))
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged ({error!r}); save it again") from error


def _normalizer(path: Path, data: Json) -> Iterator[str]:
    for kind, about in _parts(data.get("normalizer"), "normalizers"):
        if kind not in SOMETIMES:
            what = ALWAYS.get(kind, "text in a way that is not known")
            raise UnsupportedError(
                f"{path}: its normalizer {kind} changes {what}, {NOT_DONE}: almost every prompt "
                f"would come to other tokens; {TRAINED}"
            )
        pattern = f" ({about.get('pattern')!r} to {about.get('content')!r})" * (kind == "Replace")
        yield (
            f"{path}: its normalizer {kind}{pattern} changes {SOMETIMES[kind]}, {NOT_DONE}: such "
            "text comes to other tokens"
        )


def _affixes(path: Path, data: Json) -> Iterator[str]:
    for key in AFFIXES:
        if value := data["model"].get(key):
            raise UnsupportedError(
                f"{path}: its {key} is {value!r}, {NOT_DONE}: almost every word would come to "
                f"other tokens; {TRAINED}"
            )
    yield from ()


def _dropout(path: Path, data: Json) -> Iterator[str]:
    if dropout := data["model"].get("dropout"):
        yield (
            f"{path}: its dropout of {dropout} leaves merges out by chance, {NOT_DONE}: tokens "
            "are those without dropout. Set it to null, which is right after training"
        )


def _added_tokens(path: Path, data: Json) -> Iterator[str]:
    for key, what in SIDES.items():
        found = [token["content"] for token in data.get("added_tokens") or () if token.get(key)]
        if found:
            names = ", ".join(map(repr, found[:3])) + f" and {len(found) - 3} more" * (
                len(found) > 3
            )
            yield (
                f"{path}: {key} is set for the added tokens {names}: they {what}, {NOT_DONE}: text "
                "beside them can come to other tokens"
            )


def _post_processor(path: Path, data: Json) -> Iterator[str]:
    for kind, about in _parts(data.get("post_processor"), "processors"):
        if kind == "TemplateProcessing":
            parts = ["Sequence" in part for part in about.get("single") or ()]
            plain = parts.count(True) == 1 and parts.index(True) < 2 and len(parts) < 4
            if plain and len(parts) - parts.index(True) < 3:
                continue
        elif kind in ("ByteLevel", "RobertaProcessing"):
            continue
        yield (
            f"{path}: its post_processor {kind} adds tokens that a GGUF cannot say (more than one "
            "before the text and one behind it): add them to the prompt"
        )


def _decoder(path: Path, data: Json) -> Iterator[str]:
    kinds = [kind for kind, _ in _parts(data.get("decoder"), "decoders")]
    if others := [kind for kind in kinds if kind != "ByteLevel"]:
        yield (
            f"{path}: its decoder {others[0]} changes the text of tokens, {NOT_DONE}: answers can "
            "read otherwise"
        )


def _parts(given: Any, key: str) -> Iterator[tuple[str, Json]]:
    """Yield each part of a field, which may be a sequence of others, by its type."""
    if given is None:
        return
    if given.get("type") == "Sequence":
        for part in given.get(key) or ():
            yield from _parts(part, key)
    else:
        yield str(given.get("type")), given
