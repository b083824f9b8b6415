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
from lfm2gguf.errors import CheckpointError, UnsupportedError

LFM2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The split regular expressions that are known, and llama.cpp's name for each
# (src/llama-vocab.cpp, commit 0c1e57098: "lfm2" splits as LLAMA3 does).
SPLITS = {LFM2_SPLIT: "lfm2"}


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

    @classmethod
    def load(cls, folder: Path, pre: str | None = None) -> Tokenizer:
        """Read ``tokenizer.json``; ``pre`` forces the pre-tokenizer's name.

        Raises:
            CheckpointError: the file is missing or damaged.
            UnsupportedError: the tokenizer is not a byte-level BPE that llama.cpp knows.

        """
        path = folder / "tokenizer.json"
        data = read_json(path, needed_for="the vocabulary")
        model = data.get("model") or {}
        if model.get("type") != "BPE":
            raise UnsupportedError(
                f"{path}: its model is {model.get('type')!r}; LFM2's tokenizers are 'BPE'"
            )
        try:
            tokens = {id: (token, TokenType.NORMAL) for token, id in model["vocab"].items()}
            tokens |= {t["id"]: _added(t) for t in _added_tokens(folder, data)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: its vocabulary is damaged ({error!r})") from error
        return cls(tokens, pre or recognise(path, data.get("pre_tokenizer")))

    def padded(self, n_rows: int) -> tuple[list[str], list[TokenType]]:
        """One token for each of the embedding's ``n_rows`` rows; rows without one are unused.

        Raises:
            CheckpointError: there are tokens past the last row.

        """
        if (last := max(self.tokens, default=-1)) >= n_rows:
            raise CheckpointError(
                f"the tokenizer has a token with id {last} ({self.tokens[last][0]!r}) and the "
                f"embedding {n_rows} rows; resize the embedding "
                "(model.resize_token_embeddings(len(tokenizer))) and save the checkpoint again"
            )
        rows = [self.tokens.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(n_rows)]
        return [token for token, _ in rows], [type for _, type in rows]


def recognise(path: Path, pre_tokenizer: Any) -> str:
    """llama.cpp's name for a pre-tokenizer: a known split, then bytes without more splitting.

    Raises:
        UnsupportedError: it is another; the message shows it and how to force a name.

    """
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", **split},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if regex in SPLITS and not split.get("invert"):
            return SPLITS[regex]
    found = json.dumps(pre_tokenizer, ensure_ascii=False)
    raise UnsupportedError(
        f"{path}: unknown pre-tokenizer {found[:300]}; if llama.cpp splits text the same way "
        "under one of its names, give that name with --pre (pre=...), for example --pre lfm2"
    )


def _added_tokens(folder: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of tokenizer.json, then those that only tokenizer_config.json knows."""
    added = list(data.get("added_tokens") or [])
    known = {token["id"] for token in added}
    config = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    extra = [token | {"id": int(id)} for id, token in config.items() if int(id) not in known]
    return added + extra


def _added(token: dict[str, Any]) -> tuple[str, TokenType]:
    """An added token's text and type, by the rules of conversion/base.py, get_vocab_base."""
    text = token["content"]
    if token.get("special") or (text.startswith("<|") and text.endswith("|>")):
        return text, TokenType.CONTROL
    return text.replace("\u2581", " "), TokenType.USER_DEFINED
