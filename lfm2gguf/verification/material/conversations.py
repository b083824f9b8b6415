"""Conversations as samples: rendered by the model's own template, assistant's tokens scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.chat.environment import environment
from lfm2gguf.checkpoint import read_json
from lfm2gguf.errors import CheckpointError, MissingDependencyError, OptionError
from lfm2gguf.verification.material.models import Ids, load_tokenizer
from lfm2gguf.verification.material.texts import Sample

MAX_TOKENS = 4096  # of one conversation; what follows is not scored

Message = Mapping[str, Any]
Span = tuple[int, int]  # characters of a rendered conversation


class ChatTemplate:
    """A checkpoint's chat template, rendered as transformers renders it (in a sandbox)."""

    def __init__(self, folder: Path) -> None:
        """Find the template.

        Raises:
            CheckpointError: there is none, or it does not parse.

        """
        config = read_json(folder / "tokenizer_config.json")
        source = _template_source(folder, config)
        if not source:
            raise CheckpointError(
                f"{folder}: has no chat template, which chat (--chat) needs; copy it from the base "
                "model"
            )
        self._special = {
            name: token.get("content") if isinstance(token, dict) else token
            for name, token in config.items()
            if name in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        self._template = _compile(source, folder)

    def render(
        self, messages: Sequence[Message], tools: Any = None, *, prompt: bool = False
    ) -> str:
        """Give the text of a conversation; ``prompt`` opens the assistant's next turn.

        Raises:
            OptionError: the template refuses the conversation.

        """
        try:
            text: str = self._template.render(
                messages=messages, tools=tools, add_generation_prompt=prompt, **self._special
            )
        except Exception as error:  # Jinja's, or what the template's own code raised
            raise OptionError(f"the chat template refuses a conversation: {error}") from error
        return text


def read_conversations(path: Path) -> list[Mapping[str, Any]]:
    """Read JSON lines: ``{"messages": [...], "tools": [...]}`` or a bare list of messages.

    Raises:
        OptionError: a line is wrong, which the message names.

    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: the conversations cannot be read ({error})") from error
    found = [_conversation(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise OptionError(f"{path}: holds no conversation; write one on each line")
    return found


def chat_samples(folder: Path, path: Path) -> list[tuple[str, Ids, Sample]]:
    """Render and tokenize a file of conversations: text, all its ids, and what is scored."""
    template, tokenizer = ChatTemplate(folder), load_tokenizer(folder / "tokenizer.json")
    samples = []
    for conversation in read_conversations(path):
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
    template: ChatTemplate, conversation: Mapping[str, Any]
) -> Iterator[tuple[str, list[Span]]]:
    """Give texts with the spans of the assistant's turns in each.

    One text, if the template leaves earlier turns as they were; where it rewrites them
    (thinking that is dropped), one for each turn, as the model saw it when it answered.
    """
    messages, tools = conversation["messages"], conversation.get("tools")
    turns = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    parts = []
    for i in turns:
        text = template.render(messages[: i + 1], tools)
        prompt = template.render(messages[:i], tools, prompt=True)
        if not text.startswith(prompt):  # some templates open a turn with more than they keep
            prompt = template.render(messages[:i], tools)
        parts.append((text, (len(prompt), len(text))))
    if parts and all(parts[-1][0].startswith(text) for text, _ in parts):
        yield parts[-1][0], [span for _, span in parts]
    else:
        yield from ((text, [span]) for text, span in parts)


def _conversation(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise OptionError(
            f"{path}, line {number}: is not JSON ({error}); write one conversation on each line"
        ) from error
    value = {"messages": value} if isinstance(value, list) else value
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise OptionError(
            f'{path}, line {number}: has no list of messages; write {{"messages": [...]}}'
        )
    return {"messages": messages, "tools": value.get("tools")}


def _template_source(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    source = config.get("chat_template") or read_json(folder / "chat_template.json").get(
        "chat_template", ""
    )
    if isinstance(source, list):  # several, by name
        named = {entry.get("name"): entry.get("template", "") for entry in source}
        source = named.get("default", "")
    return str(source)


def _compile(source: str, folder: Path) -> Any:
    try:
        return environment().from_string(source)
    except MissingDependencyError:
        raise
    except Exception as error:  # Jinja's, of several kinds
        raise CheckpointError(f"{folder}: the chat template does not parse: {error}") from error
