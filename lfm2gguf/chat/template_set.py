"""The chat templates of a file: one for plain conversations, perhaps another for tools.

llama.cpp chooses so (common/chat.cpp at 0c1e57098, ``common_chat_templates_init`` and
``common_chat_templates_apply``): with tools the template named ``tool_use``, and that one for all
conversations where there is no default. Unlike there, tools that a template never mentions are
not lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfm2gguf.chat.template import Message, Template
from lfm2gguf.errors import OptionError

# How the members' own templates introduce the tools: LFM2-8B-A1B's, and LFM2.5-Instruct's.
MARKED_LIST = ("List of tools: <|tool_list_start|>[", "]<|tool_list_end|>")
BARE_LIST = ("List of tools: [", "]")


@dataclass(frozen=True)
class TemplateSet:
    """The template for plain conversations, and the one for conversations with tools.

    Where the latter never mentions tools, they are written into the system message, as a
    ``tool_list`` (its beginning and its end); without one they are refused.
    """

    plain: Template
    with_tools: Template
    tool_list: tuple[str, str] | None = MARKED_LIST

    def prompt_of(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], **variables: Any
    ) -> str:
        """Return the prompt for the next answer to messages from ``as_messages``.

        Raises:
            OptionError: the template refuses the messages, or has no place for the tools.

        """
        if not tools:
            return self.plain.prompt_of(messages, **variables)
        if not self.with_tools.writes_tools:
            messages = self._listed(messages, tools)
        return self.with_tools.prompt_of(messages, tools, **variables)

    def _listed(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> list[Message]:
        """Return the messages with the tools at the end of the system message."""
        if self.tool_list is None:
            raise OptionError(
                "tools: the file's chat template never mentions them, and the model would not see "
                "them; open it with inject_tools=True (--inject-tools), which lists them in the "
                "system message, or use a template that has a place for them"
            )
        start, end = self.tool_list
        text = start + ", ".join(json.dumps(tool, ensure_ascii=False) for tool in tools) + end
        if messages[0]["role"] != "system":
            return [{"role": "system", "content": text}, *messages]
        first = dict(messages[0])
        content = first.get("content") or ""
        if isinstance(content, str):
            first["content"] = f"{content}\n{text}" if content else text
        else:
            first["content"] = [*content, {"type": "text", "text": f"\n{text}"}]
        return [first, *messages[1:]]
