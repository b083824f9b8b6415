"""Rows of training data as conversations: the forms in which people keep them.

Messages as the Hub has them, ShareGPT's ``conversations``, Alpaca's ``instruction``, ``input`` and
``output``, and TRL's ``prompt`` and ``completion``; as JSON lines, or one JSON list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.json_text import parse_json
from lfm2gguf.text_file import read_text_file

Message = dict[str, Any]
Row = Mapping[str, Any]

EXAMPLES = (
    '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
    '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}',
    '{"instruction": "Greet me.", "input": "", "output": "Hello"}',
    '{"prompt": "Hi", "completion": "Hello"}',
)
# Who speaks, by ShareGPT's names (as LLaMA-Factory and Axolotl read them) and by the Hub's.
ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "function_call": "assistant", "developer": "system",
    "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool",
    "function": "tool", "ipython": "tool",
}  # fmt: skip


# JSON's texts may hold what else ends a line to Python, such as U+2028.
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of conversations: ``{"messages": [...], "tools": [...] or None}`` each.

    Raises:
        OptionError: a line fits none of the forms; the message says what one looks like.

    """
    text = read_text_file(path, "the file of conversations")
    found = [_conversation(where, value) for where, value in _values(path, text)]
    if not found:
        raise OptionError(f"{path}: holds no conversation; write one on each line")
    return found


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield every row with its place: of one JSON value that fills the file, or of each line."""
    whole = _whole(text)
    if isinstance(whole, list) and whole and not _is_message(whole[0]):
        yield from ((f"{path}, row {n}", row) for n, row in enumerate(whole, 1))
        return
    if whole is not None:
        yield f"{path}, line 1", whole
        return
    for n, line in enumerate(_LINE_END.split(text), 1):
        if line.strip():
            try:
                yield f"{path}, line {n}", parse_json(line)
            except ValueError as error:
                raise OptionError(
                    f"{path}, line {n}: is not JSON ({error}); write one conversation on each "
                    f"line, such as {EXAMPLES[0]}"
                ) from error


def _whole(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role", value.get("from")), str)


def _conversation(where: str, value: Any) -> dict[str, Any]:
    row: Row = {"messages": value} if isinstance(value, list) else value
    if isinstance(row, Mapping):
        for form in FORMS:
            if (messages := form(row)) is not None:
                return {"messages": messages, "tools": _tools(where, row.get("tools"))}
    has = f"has the keys {', '.join(map(str, row))}" if isinstance(row, Mapping) else "is a value"
    turns = (_given(row) or []) if isinstance(row, Mapping) else []
    unread = next((f" (not read: {turn!r:.120})" for turn in turns if _message(turn) is None), "")
    raise OptionError(f"{where}: {has}{unread}, which fits no form of a conversation; {_look()}")


def _look() -> str:
    return f"a line looks like {', '.join(EXAMPLES[:-1])} or {EXAMPLES[-1]}"


def _given(row: Row) -> list[Any] | None:
    keys = ("messages", "conversations", "conversation")
    return next((row[key] for key in keys if isinstance(row.get(key), list)), None)


def _turns(row: Row) -> list[Message] | None:
    """Read messages, with the Hub's names or ShareGPT's."""
    found = [_message(turn) for turn in _given(row) or []]
    if not found or None in found:
        return None
    return [*_system(row), *(message for message in found if message)]


def _message(turn: Any) -> Message | None:
    if not isinstance(turn, Mapping):
        return None
    speaker = str(turn.get("role", turn.get("from"))).lower()
    role, content = ROLES.get(speaker), _text(turn.get("content", turn.get("value")))
    kept = {k: v for k, v in turn.items() if k not in ("from", "value", "weight")}
    if speaker == "function_call" and (calls := _calls(content)):
        kept["tool_calls"], content = calls, ""
    if role is None or not isinstance(content, str | None):
        return None
    if not _are_calls(kept.get("tool_calls") or []):
        return None
    if content is None and not kept.get("tool_calls"):
        return None
    return {**kept, "role": role, "content": content or ""}


def _text(content: Any) -> Any:
    """Join parts that are texts by line breaks, as llama.cpp does; others stay what they are."""
    parts: list[Any] = content if isinstance(content, list) else [None]
    if all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
        return "\n".join(part["text"] for part in parts)
    return content


def _calls(content: Any) -> list[Any]:
    """Return the calls that LLaMA-Factory's ``function_call`` holds as JSON; none of other text."""
    value = _whole(content) if isinstance(content, str) else None
    calls = value if isinstance(value, list) else [value]
    return calls if _are_calls(calls) else []


def _are_calls(given: Any) -> bool:
    """Say whether they are calls in OpenAI's form, or the functions of such alone."""
    if not isinstance(given, list) or not all(isinstance(call, Mapping) for call in given):
        return False
    functions = [call.get("function", call) for call in given]
    return all(isinstance(f, Mapping) and isinstance(f.get("name"), str) for f in functions)


def _alpaca(row: Row) -> list[Message] | None:
    """Read an instruction and its output; an input (Dolly's context) stands on a line below."""
    instruction, output = row.get("instruction"), row.get("output", row.get("response"))
    if not isinstance(instruction, str) or not isinstance(output, str):
        return None
    more = row.get("input") or row.get("context")
    question = "\n".join(str(text) for text in (instruction, more) if text)
    earlier = row.get("history") or []
    pairs = [pair for pair in earlier if isinstance(pair, list | tuple) and len(pair) == 2]
    return [
        *_system(row),
        *(message for asked, said in pairs for message in _pair(str(asked), str(said))),
        *_pair(question, output),
    ]


def _completion(row: Row) -> list[Message] | None:
    """Read a prompt and its completion: texts or messages, each for itself."""
    prompt, answer = row.get("prompt"), row.get("completion", row.get("response"))
    sides: list[Any] = []
    for given, role in ((prompt, "user"), (answer, "assistant")):
        if not isinstance(given, str | list):
            return None
        sides += [{"role": role, "content": given}] if isinstance(given, str) else given
    return _turns({"messages": sides, "system": row.get("system")})


def _system(row: Row) -> list[Message]:
    system = row.get("system")
    return [{"role": "system", "content": system}] if isinstance(system, str) and system else []


def _pair(question: str, answer: str) -> tuple[Message, Message]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def _tools(where: str, given: Any) -> list[Any] | None:
    """Return tools, which some keep as a text of JSON."""
    if isinstance(given, str):
        given = _whole(given) if given.strip() else None
    if given in (None, []):
        return None
    if not isinstance(given, list):
        raise OptionError(f"{where}: tools: is no list of functions")
    return given


FORMS: tuple[Callable[[Row], list[Message] | None], ...] = (_turns, _alpaca, _completion)
