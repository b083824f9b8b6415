"""Conversations as samples: rendered by the model's own template, assistant's tokens scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.chat.template import Template
from lfm2gguf.checkpoint import default_chat_template, read_json
from lfm2gguf.errors import CheckpointError, GGUFError, OptionError
from lfm2gguf.verification.material.models import Ids, load_tokenizer
from lfm2gguf.verification.material.rows import read_rows
from lfm2gguf.verification.material.texts import Sample

MAX_TOKENS = 4096  # of one conversation; what follows is not scored

Span = tuple[int, int]  # characters of a rendered conversation


def template_of(folder: Path) -> Template:
    """Return the chat template that a GGUF of a checkpoint has.

    Raises:
        CheckpointError: there is none, or it does not compile.

    """
    source = default_chat_template(folder)
    if not source:
        raise CheckpointError(
            f"{folder}: there is no chat template, and conversations (--chat) need one; put the "
            "model's chat_template.jinja beside its tokenizer_config.json"
        )
    config = read_json(folder / "tokenizer_config.json")
    tokens = {kind: config.get(f"{kind}_token") for kind in ("bos", "eos", "pad", "unk")}
    texts = {
        k: token.get("content") if isinstance(token, dict) else token for k, token in tokens.items()
    }
    try:
        return Template(source, **{k: text for k, text in texts.items() if isinstance(text, str)})
    except GGUFError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def chat_samples(folder: Path, path: Path) -> list[tuple[str, Ids, Sample]]:
    """Render and tokenize a file of conversations: text, all its ids, and what is scored."""
    template, tokenizer = template_of(folder), load_tokenizer(folder / "tokenizer.json")
    samples = []
    for conversation in read_rows(path):
        for text, spans in rendered(template, conversation):
            encoding = tokenizer.encode(text, add_special_tokens=False)
            ids = np.array(encoding.ids, np.int32)
            starts = np.array([start for start, _ in encoding.offsets[:MAX_TOKENS]])
            inside = np.any([(starts >= a) & (starts < b) for a, b in spans], axis=0)
            targets = np.flatnonzero(inside[1:]) + 1
            if len(targets):
                samples.append((text, ids, Sample(ids[:MAX_TOKENS], targets - 1)))
    if not samples:
        raise OptionError(f"{path}: no assistant message is within {MAX_TOKENS} tokens")
    return samples


def rendered(
    template: Template, conversation: Mapping[str, Any]
) -> Iterator[tuple[str, list[Span]]]:
    """Give texts with the spans of the assistant's turns in each.

    Calls and thinking stand in the content where the template would lose them, as in a prompt.
    One text, if the template leaves earlier turns as they were; where it rewrites them
    (thinking that is dropped), one for each turn, as the model saw it when it answered.
    """
    messages, tools = conversation["messages"], conversation.get("tools")
    turns = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    parts = []
    for i in turns:
        text = template.prompt_of(messages[: i + 1], tools, add_generation_prompt=False)
        prompt = template.prompt_of(messages[:i], tools)
        if not text.startswith(prompt):  # some templates open a turn with more than they keep
            prompt = template.prompt_of(messages[:i], tools, add_generation_prompt=False)
        parts.append((text, (len(prompt), len(text))))
    if parts and all(parts[-1][0].startswith(text) for text, _ in parts):
        yield parts[-1][0], [span for _, span in parts]
    else:
        yield from ((text, [span]) for text, span in parts)
