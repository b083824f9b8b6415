"""Conversations that the golden file renders with transformers and the tests with our own code."""

from typing import Any, Literal, Optional

DAY = "2026-11-21T12:00:00"
TOKENS = {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}

SYSTEM = {"role": "system", "content": "You are a careful assistant."}
HELLO = {"role": "user", "content": 'Hello <world> & "friends", 日本語 🙂'}
HI = {"role": "assistant", "content": "Hi.\n"}
MORE = {"role": "user", "content": "  More?  "}
WEATHER = {
    "name": "get_weather",
    "description": "Weather in a 'city' <now>",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
WRAPPED = {"type": "function", "function": {"name": "add", "description": "é", "parameters": {}}}
CALL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "arguments": {
            "city": 'São "P"', "n": 3, "x": None, "y": True, "z": {"a": [1]}, "l": [1, "b"],
        },
    },
}  # fmt: skip
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
RESULT = {"role": "tool", "content": '{"temperature": 21}'}
DATA = {"role": "tool", "content": [{"temperature": 21, "ok": True}]}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}],
}
THOUGHT = {"role": "assistant", "content": "<think>Let me see.</think>\n\nIt is 4."}
THINKING = {"role": "assistant", "thinking": "Let me see.", "content": "It is 4."}
REASONING = {"role": "assistant", "reasoning_content": "Let me see.", "content": "It is 4."}

CASES: dict[str, dict[str, Any]] = {
    "one": {"messages": [HELLO]},
    "no prompt": {"messages": [HELLO, HI], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, HELLO]},
    "system only": {"messages": [SYSTEM]},
    "turns": {"messages": [SYSTEM, HELLO, HI, MORE, HI, HELLO]},
    "tools": {"messages": [HELLO], "tools": [WEATHER, WRAPPED]},
    "no tools": {"messages": [HELLO], "tools": []},
    "system and tools": {"messages": [SYSTEM, HELLO], "tools": [WRAPPED]},
    "tool result": {"messages": [SYSTEM, HELLO, HI, RESULT], "tools": [WEATHER]},
    "tool data": {"messages": [HELLO, HI, DATA, HI, MORE]},
    "calls": {"messages": [HELLO, CALLED, RESULT, RESULT], "tools": [WEATHER]},
    "parts": {"messages": [PARTS]},
    "thought": {"messages": [HELLO, THOUGHT, MORE]},
    "thought twice": {"messages": [HELLO, THOUGHT, MORE, THOUGHT, MORE]},
    "thinking": {"messages": [HELLO, THINKING, MORE, THINKING, MORE]},
    "reasoning": {"messages": [HELLO, REASONING, RESULT]},
    "thinking kept": {
        "messages": [HELLO, THINKING, MORE, THOUGHT, MORE],
        "preserve_thinking": True,
        "keep_past_thinking": True,
    },
    "thinking in a tool loop": {"messages": [HELLO, {**CALLED, "thinking": "Hm."}, RESULT]},
}


def get_candidate_status(candidate_id: str, deep: bool = False) -> dict:
    """
    Looks up a candidate.

    Args:
        candidate_id: The id of the candidate,
            over two lines.
        deep: Whether to look deeper: yes or no.
    """
    return {}


def plan(
    days: int,
    places: list[str],
    mood: Literal["calm", "wild"],
    weights: dict[str, float],
    limit: Optional[int] = None,  # noqa: UP045 - both spellings
    either: str | int = 1,
    both: list[int] | dict[str, int] | None = None,
    pair: tuple[int, str] = (1, ""),
    anything: Any = None,
):
    """Plans a trip.

    Args:
        days: How many days.
        places: Where to.
        mood: Which mood.
        weights: How much.
        limit: At most.
        either: One of both.
        both: Any of both.
        pair: Two things.
        anything: All.
    """


FUNCTIONS = [get_candidate_status, plan]
