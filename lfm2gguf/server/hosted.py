"""Tools that a service runs or defines itself, such as a web search: here are clients' own alone.

They are refused by their types, or passed over where the server is lenient: in the list of tools,
in a choice among them, and in what a conversation holds of their calls. Sources of the types:
OpenAI's and Anthropic's API references.
"""

from __future__ import annotations

import re
from typing import Any

Tools = tuple[str | None, ...]
OPENAI: Tools = ("function",)  # the types of tools that clients run
ANTHROPIC: Tools = (None, "custom")
# What a service says of its tools in a conversation: OpenAI's items, and Anthropic's blocks.
_ITEM = re.compile(r"(?!function_)\w+_call(_output)?|mcp_\w+|tool_search_output")
_BLOCK = re.compile(r"(server|mcp)_tool_use|\w+_tool_result")


def hosted_type(tool: Any, own: Tools) -> str | None:
    """Return the type of a tool in a request if it is not one of the client's ``own``."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return kind if isinstance(kind, str) and kind not in own else None


def refuse_hosted(tool: Any, own: Tools) -> None:
    """Refuse a tool that no client runs.

    Raises:
        ValueError: it is of another type than the client's ``own``.
    """
    if (kind := hosted_type(tool, own)) is not None:
        known = " and ".join(name for name in own if name)
        raise ValueError(
            f"this server has no tool of type {kind!r}, {known} ones alone "
            "(--lenient passes it over)"
        )


def pass_over_hosted(given: dict[str, Any], own: Tools) -> list[str]:
    """Take hosted tools out of a request, and a choice that only they could meet.

    Returns:
        What was taken out. The client's own lists stay as they are.
    """
    passed = _history(given)
    tools = given.get("tools")
    hosted = [tool for tool in tools if hosted_type(tool, own)] if isinstance(tools, list) else []
    if hosted:
        given["tools"] = [tool for tool in given["tools"] if hosted_type(tool, own) is None]
        passed += [f"tools.{tool['type']}" for tool in hosted]
    if (choice := given.get("tool_choice")) is None:
        return passed
    only_they = {tool["type"] for tool in hosted} | {str(tool.get("name")) for tool in hosted}
    chosen = isinstance(choice, dict) and any(
        isinstance(said := choice.get(key), str) and said in only_they for key in ("type", "name")
    )
    if hosted and (chosen or not given["tools"]):
        del given["tool_choice"]
        if choice not in ("none", "auto"):
            passed.append("tool_choice")
        return passed
    return passed + _allowed(given, own)


def _allowed(given: dict[str, Any], own: Tools) -> list[str]:
    """Take hosted tools out of a choice of several, OpenAI's ``allowed_tools``."""
    choice = given["tool_choice"]
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return []
    inner = choice.get("allowed_tools")  # chat has it there, responses in the choice itself
    among = inner if isinstance(inner, dict) else choice
    tools = among.get("tools")
    hosted = [tool for tool in tools if hosted_type(tool, own)] if isinstance(tools, list) else []
    if not hosted:
        return []
    left = {**among, "tools": [tool for tool in among["tools"] if tool not in hosted]}
    given["tool_choice"] = {**choice, "allowed_tools": left} if among is inner else left
    if not left["tools"]:
        given["tool_choice"] = "none"  # of the client's own tools it allows none
    return [f"tool_choice.{tool['type']}" for tool in hosted]


def _history(given: dict[str, Any]) -> list[str]:
    """Take out what a conversation holds of hosted tools, and messages that hold nothing else."""
    passed: list[str] = []

    def own(said: list[Any], pattern: re.Pattern[str], where: str) -> list[Any]:
        kinds = [item.get("type") if isinstance(item, dict) else None for item in said]
        hosted = [isinstance(kind, str) and pattern.fullmatch(kind) for kind in kinds]
        passed.extend(f"{where}.{found[0]}" for found in hosted if found)
        return [item for item, found in zip(said, hosted, strict=True) if not found]

    if isinstance(items := given.get("input"), list):
        given["input"] = own(items, _ITEM, "input")
    if isinstance(messages := given.get("messages"), list):
        given["messages"] = []
        for message in messages:
            if isinstance(message, dict) and isinstance(blocks := message.get("content"), list):
                left = own(blocks, _BLOCK, "messages")
                if blocks and not left:
                    continue
                message = {**message, "content": left}
            given["messages"].append(message)
    return passed
