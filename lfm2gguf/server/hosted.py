"""Tools that a service runs or defines itself, such as a web search: here are clients' own alone.

They are refused by their types, or passed over where the server is lenient. Sources of the types:
OpenAI's and Anthropic's API references.
"""

from __future__ import annotations

from typing import Any

Tools = tuple[str | None, ...]
OPENAI: Tools = ("function",)  # the types of tools that clients run
ANTHROPIC: Tools = (None, "custom")


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
    if not isinstance(tools := given.get("tools"), list):
        return []
    hosted = [tool for tool in tools if hosted_type(tool, own) is not None]
    if not hosted:
        return []
    given["tools"] = [tool for tool in tools if hosted_type(tool, own) is None]
    passed = [f"tools.{tool['type']}" for tool in hosted]
    choice = given.get("tool_choice")
    only_they = {tool["type"] for tool in hosted} | {str(tool.get("name")) for tool in hosted}
    chosen = isinstance(choice, dict) and any(
        isinstance(said := choice.get(key), str) and said in only_they for key in ("type", "name")
    )
    if "tool_choice" in given and (chosen or not given["tools"]):
        del given["tool_choice"]
        if choice not in ("none", "auto"):
            passed.append("tool_choice")
    return passed
