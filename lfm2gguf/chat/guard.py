"""Keeps control markers inside message text from being interpreted.

A prompt is one rendered text, and the tokenizer turns every ``<|im_end|>`` in it into the control
token, whoever wrote it: a user, or a web page that a tool has read, could end their turn and speak
as the system. transformers and llama.cpp leave it so. Here each such marker is cut behind its
first character by a mark that no text contains; the template carries the mark along, and the
pieces at either side of it are tokenized on their own. What is rendered is, the marks aside, what
the template makes of the text itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.template import Message
from lfm2gguf.gguf_file import GGUFFile

CUT = "\ufdd0"  # a noncharacter, not meant for interchange (Unicode 16, section 23.7)
_CONTROL, _USER_DEFINED = 3, 4  # enum llama_token_type, include/llama.h


def markers_of(file: GGUFFile) -> set[str]:
    """Return the tokens that a tokenizer finds in a text whole, before it splits it.

    Plain words among them, such as LFM2's ``python``, do not count: only control tokens do, and
    what is written in angle brackets.
    """
    tokens, types = (file.get(f"tokenizer.ggml.{key}", ()) for key in ("tokens", "token_type"))
    assert isinstance(tokens, Iterable)
    assert isinstance(types, Iterable)
    return {
        token
        for token, kind in zip(tokens, types, strict=False)
        if (kind == _CONTROL and len(token) > 1)
        or (kind == _USER_DEFINED and re.fullmatch(r"<\S+>", token))
    }


class Guard:
    """Cuts the markers in the texts of users and tools, and in an assistant's all but its own.

    System prompts and tool schemas are the program's own word and stay as they are.
    """

    def __init__(self, markers: set[str], dialect: Dialect = LFM2) -> None:
        all, others = _any_of(markers), _any_of(markers - set(dialect.own))
        self._patterns = {"user": all, "tool": all, "assistant": others}

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with their markers cut."""
        patterns = [self._patterns.get(message["role"]) for message in messages]
        return [
            message if pattern is None else _cut(message, pattern)
            for message, pattern in zip(messages, patterns, strict=True)
        ]


def _any_of(markers: set[str]) -> re.Pattern[str] | None:
    """Compile a pattern that matches where a marker begins, even inside another one."""
    return re.compile(f"(?={'|'.join(map(re.escape, sorted(markers)))})") if markers else None


def _cut(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return _cut_texts([value], pattern)[0]
    if isinstance(value, Mapping):
        return {_cut(key, pattern): _cut(item, pattern) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _cut_parts(value, pattern)
    return value


def _cut_parts(parts: Sequence[Any], pattern: re.Pattern[str]) -> list[Any]:
    """Cut the parts of a content; templates join the texts, so a marker may lie across two."""
    cut = [_cut(part, pattern) for part in parts]
    texts = [i for i, part in enumerate(parts) if _is_text(part)]
    joined = _cut_texts([parts[i]["text"] for i in texts], pattern)
    for i, text in zip(texts, joined, strict=True):
        cut[i]["text"] = text
    return cut


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _cut_texts(texts: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """Cut every marker of the joined texts; marks that are there already are taken out."""
    texts = [text.replace(CUT, "") for text in texts]
    cuts = [match.start() + 1 for match in pattern.finditer("".join(texts))]
    result: list[str] = []
    start = 0
    for text in texts:
        edges = [0, *(cut - start for cut in cuts if 0 < cut - start <= len(text)), len(text)]
        result.append(CUT.join(text[a:b] for a, b in itertools.pairwise(edges)))
        start += len(text)
    return result
