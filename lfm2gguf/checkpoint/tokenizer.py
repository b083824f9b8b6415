"""The tokenizer of ``tokenizer.json``: its tokens, their kinds, and how it splits text.

llama.cpp's converter recognises a pre-tokenizer by hashing the tokens of a test sentence, so
that every fine-tune that adds a token is unknown to it. Here it is recognised by its
structure, which adding a token does not change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint.folder import read_json
from lfm2gguf.checkpoint.tokenizer_schema import tokenizer_notes
from lfm2gguf.errors import CheckpointError, UnsupportedError

LFM2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The split regular expressions that are known, and llama.cpp's name for each
# (src/llama-vocab.cpp, commit 0c1e57098: "lfm2" splits as LLAMA3 does).
SPLITS = {LFM2_SPLIT: "lfm2"}

# The family of 128,000 tokens (LFM2.5-2.6B, 8B-A1B, VL-3B) splits in another way, which llama.cpp
# calls "lfm2" too (conversion/base.py, get_vocab_base_pre). It is known by what a fine-tune does
# not change: how many merges there are, and where the special tokens are.
LARGE_MERGES = 293_320
LARGE_IDS = {"<|pad|>": 124_893, "<|startoftext|>": 124_894, "<|im_end|>": 124_900}

# Added tokens that are control tokens to llama.cpp, whatever the tokenizer says of them
# (conversion/base.py, does_token_look_special, commit 0c1e57098).
SPECIAL_LOOKS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
SPECIAL_TEXTS = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}


class TokenType(Enum):
    """What llama.cpp makes of a token (``llama_token_type`` in include/llama.h)."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Tokenizer:
    """Tokens by id with their types, and the pre-tokenizer's name in llama.cpp."""

    tokens: Mapping[int, tuple[str, TokenType]] = field(repr=False)
    pre: str
    notes: tuple[str, ...] = ()  # what can change tokens and is not in a GGUF

    @classmethod
    def load(cls, folder: Path, pre: str | None = None) -> Tokenizer:
        """Read ``tokenizer.json``; ``pre`` forces the pre-tokenizer's name.

        Raises:
            CheckpointError: the file is missing or damaged.
            UnsupportedError: the tokenizer is not a byte-level BPE that llama.cpp knows, or does
                what changes almost every text and llama.cpp does not do.

        """
        path = folder / "tokenizer.json"
        data = read_json(path, needed_for="the vocabulary")
        model = data.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if model is None or kind != "BPE":
            raise UnsupportedError(
                f"{path}: its model is {kind!r}, not 'BPE' as LFM2's; copy it from the base model"
            )
        try:
            tokens = {id: (token, TokenType.NORMAL) for token, id in model["vocab"].items()}
            tokens |= {t["id"]: _added(t) for t in _added_tokens(folder, data)}
            if bad := [id for id in tokens if not isinstance(id, int) or id < 0]:
                raise ValueError(f"a token has the id {bad[0]!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: its vocabulary is damaged ({error!r}); save it again"
            ) from error
        pre = pre or recognise(path, data.get("pre_tokenizer"), _is_large(tokens, model))
        return cls(tokens, pre, tokenizer_notes(path, data))

    def padded(self, n_rows: int) -> tuple[list[str], list[TokenType]]:
        """Return a token for each of the embedding's ``n_rows`` rows; rows without one are unused.

        Raises:
            CheckpointError: there are tokens past the last row, or two have the same text.

        """
        if (last := max(self.tokens, default=-1)) >= n_rows:
            raise CheckpointError(
                f"the tokenizer has a token with id {last} ({self.tokens[last][0]!r}) and the "
                f"embedding {n_rows} rows; resize the embedding "
                "(model.resize_token_embeddings(len(tokenizer))) and save the checkpoint again"
            )
        rows = [self.tokens.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(n_rows)]
        ids: dict[str, int] = {}
        for id, (text, _) in enumerate(rows):
            if (first := ids.setdefault(text, id)) != id:
                raise CheckpointError(
                    f"the tokens {first} and {id} of tokenizer.json are both {text!r}; llama.cpp "
                    "cannot load such a vocabulary. Take one of them out of its added_tokens"
                )
        return [token for token, _ in rows], [type for _, type in rows]


def recognise(path: Path, pre_tokenizer: Any, is_large: bool = False) -> str:
    """Return llama.cpp's name for a pre-tokenizer: a known split, then bytes, not split again.

    ``is_large`` says that the vocabulary is the one of 128,000 tokens, whose splits are taken
    as they are.

    Raises:
        UnsupportedError: it is another; the message shows it and how to force a name.

    """
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str() as regex},
                    "behavior": "Isolated",
                    **split,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if regex in SPLITS and not split.get("invert"):
            return SPLITS[regex]
        case {
            "type": "Sequence",
            "pretokenizers": [
                *splits,
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if is_large and all(isinstance(s, dict) and s.get("type") == "Split" for s in splits):
            return "lfm2"
    found = json.dumps(pre_tokenizer, ensure_ascii=False)
    raise UnsupportedError(
        f"{path}: unknown pre-tokenizer {found[:300]}; if llama.cpp splits text the same way "
        "under one of its names, give that name with --pre (pre=...), for example --pre lfm2"
    )


def _is_large(tokens: Mapping[int, tuple[str, TokenType]], model: Mapping[str, Any]) -> bool:
    merges = model.get("merges")
    return (
        isinstance(merges, list)
        and len(merges) == LARGE_MERGES
        and all(tokens.get(id, ("",))[0] == text for text, id in LARGE_IDS.items())
    )


def _added_tokens(folder: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the added tokens of tokenizer.json, then those only in tokenizer_config.json.

    An id or a text that tokenizer.json has already is its, as in transformers.
    """
    added = list(data.get("added_tokens") or [])
    known = {token["id"] for token in added}
    ids = data["model"]["vocab"] | {token["content"]: token["id"] for token in added}
    config = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    extra = [token | {"id": int(id)} for id, token in config.items() if int(id) not in known]
    return added + [
        token for token in extra if ids.get(token["content"], token["id"]) == token["id"]
    ]


def _added(token: dict[str, Any]) -> tuple[str, TokenType]:
    """Return an added token's text and type, by the rules of conversion/base.py, get_vocab_base."""
    text = token["content"]
    looks = any(text.startswith(a) and text.endswith(b) for a, b in SPECIAL_LOOKS)
    if token.get("special") or looks or text in SPECIAL_TEXTS:
        return text, TokenType.CONTROL
    return text.replace("\u2581", " "), TokenType.USER_DEFINED
