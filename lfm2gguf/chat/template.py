"""Chat templates: the file's own Jinja, rendered as transformers' apply_chat_template does.

A template is code from wherever the file came from, so it runs in Jinja's immutable sandbox
and sees plain data only. Source: transformers 5.23, ``utils/chat_template_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfm2gguf.chat.bounds import TooMuch
from lfm2gguf.chat.dialect import dialect_of
from lfm2gguf.chat.environment import environment
from lfm2gguf.chat.tool_calls import BadCall, ToolCall, write_calls
from lfm2gguf.errors import GGUFError, MissingDependencyError, OptionError
from lfm2gguf.json_text import parse_json, too_deep

Message = Mapping[str, Any]
Messages = str | Sequence[Message]

REASONING = ("reasoning_content", "thinking", "reasoning")  # names for one thing
_PROBE = "lfm2gguf_probe"


class Template:
    """A chat template, and what it makes of thinking and of earlier tool calls."""

    def __init__(
        self, source: str, *, bos: str = "", eos: str = "", pad: str = "", unk: str = ""
    ) -> None:
        self.source = source
        self.dialect = dialect_of(source)
        self._tokens = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk}
        try:
            self._compiled = environment().from_string(source)
        except MissingDependencyError:
            raise
        except Exception as error:
            raise GGUFError(f"the chat template does not compile: {error}") from error
        calls, thinking = {"tool_calls": _PROBE_CALLS}, {"thinking": _PROBE}
        self.writes_calls = self._shows([{"role": "assistant", "content": "", **calls}])
        self.writes_thinking = self._shows([{"role": "assistant", "content": "", **thinking}])
        self.writes_tools = self._shows([], _PROBE_TOOLS)

    def _shows(
        self, messages: list[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> bool:
        """Ask the template itself whether a part of a conversation reaches the prompt."""
        question = {"role": "user", "content": "?"}
        try:
            return _PROBE in self.render([question, *messages], tools)
        except OptionError as error:
            if isinstance(error.__cause__, TooMuch):
                raise GGUFError(f"the chat template cannot be used: {error.__cause__}") from error
            return False

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation, character for character as transformers renders it.

        Raises:
            OptionError: the template refuses the messages.

        """
        try:
            return str(
                self._compiled.render(
                    messages=[_with_reasoning(_plain(message)) for message in messages],
                    tools=None if tools is None else _plain(list(tools)),
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **{**self._tokens, **_plain(variables)},
                )
            )
        except Exception as error:  # a template may raise anything
            raise OptionError(f"the chat template refuses these messages: {error}") from error

    def prompt(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt for the next answer.

        Unlike :meth:`render` it writes earlier tool calls and thinking into the content where
        the template would lose them, and accepts arguments given as JSON text.
        """
        return self.prompt_of(as_messages(messages), tools, **variables)

    def prompt_of(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt as :meth:`prompt` does, of messages from :func:`as_messages`."""
        prepared = [self._prepare(message) for message in messages]
        return self.render(prepared, tools or None, **{"add_generation_prompt": True, **variables})

    def _prepare(self, message: Message) -> dict[str, Any]:
        prepared = dict(message)
        content = prepared.get("content")
        prepared["content"] = "" if content is None else content
        if prepared["role"] != "assistant":
            return prepared
        calls = [_as_call(call) for call in prepared.pop("tool_calls", None) or ()]
        sound = [call for call in calls if isinstance(call, ToolCall)]
        if calls and calls == sound and self.writes_calls:
            prepared["tool_calls"] = [_as_message_call(call) for call in sound]
        elif calls:
            prepared["content"] = write_calls(calls, self.dialect) + str(prepared["content"])
        thinking = next((prepared[key] for key in REASONING if prepared.get(key)), None)
        if thinking and not self.writes_thinking:
            start, end = self.dialect.thinking
            prepared["content"] = f"{start}{thinking}{end}{prepared['content']}"
        return prepared


_PROBE_CALLS = [
    {"type": "function", "function": {"name": _PROBE, "arguments": {"x": "1"}}},
]
_PROBE_SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
_PROBE_TOOLS = [
    {
        "type": "function",
        "function": {"name": _PROBE, "description": "", "parameters": _PROBE_SCHEMA},
    },
]


def as_messages(messages: Messages) -> list[Message]:
    """Return a list of messages; a text becomes a user's.

    Raises:
        OptionError: there are none, or one is not a message.

    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    listed = list(messages)
    if not listed:
        raise OptionError("there are no messages: give a text or at least one message")
    for i, message in enumerate(listed):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise OptionError(
                f"message {i} is {message!r}: a message is a dict such as "
                '{"role": "user", "content": "..."}'
            )
        if not isinstance(message.get("content", ""), str | list | None):
            raise OptionError(f"message {i}: its content must be a text or a list of parts")
    return listed


_OURS = {"self", "messages", "tools", "documents", "add_generation_prompt"}


def check_variables(variables: Mapping[str, Any]) -> None:
    """Check that variables are the caller's to set.

    Raises:
        OptionError: one is not.

    """
    for name in variables:
        if not isinstance(name, str) or name in _OURS:
            raise OptionError(f"template: {name!r} is not among the variables that can be set")


def drop_oldest_turn(messages: list[Message]) -> list[Message]:
    """Leave out the oldest question and all that belongs to it; system and last turn stay."""
    first = 1 if messages[0]["role"] == "system" else 0
    questions = [i for i, m in enumerate(messages) if m["role"] == "user" and i > first]
    return messages[:first] + messages[questions[0] :] if questions else messages


def _as_call(call: Any) -> ToolCall | BadCall:
    """Read a call of an earlier answer: our own, or OpenAI's form.

    Arguments that are not JSON are what a model wrote: they stay in the conversation as they are.
    """
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments)
        except ValueError:
            return BadCall(f"{name}({arguments})", "its arguments are not JSON")
    if too_deep(arguments):
        raise OptionError("tool_calls: the arguments of a call nest too deep; make them flatter")
    if not isinstance(name, str):
        raise OptionError(f"tool_calls: {call!r} needs a name")
    if not isinstance(arguments, Mapping):
        return BadCall(f"{name}({arguments!r})", "its arguments are not an object")
    return ToolCall(name, dict(arguments))


def _as_message_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    thought = next((message[key] for key in REASONING if message.get(key) is not None), None)
    if thought is None:
        return message
    return {"thinking": thought, **message, "reasoning_content": thought}


def _plain(value: Any) -> Any:
    """Rebuild a value from plain JSON types: methods of richer ones would leave the sandbox."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"
