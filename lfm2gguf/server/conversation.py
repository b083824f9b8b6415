"""From a conversation in a request to the runner's streams."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.runner import Runner, Stream, call_grammar
from lfm2gguf.server.errors import InvalidError, Refusal
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.messages import AllowedTools, NamedTool, Schema, plain_messages
from lfm2gguf.server.requests import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NamedSchema
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Service


def chat_request(fields: dict[str, Any]) -> ChatRequest:
    """Return the request for chat that a request of another API comes to.

    Raises:
        InvalidError: chat does not take it.
    """
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidError(error.errors()) from error


async def open_streams(
    body: ChatRequest, service: Service, generation: Generation, overflow: str = "error"
) -> list[Stream]:
    """Check a request, make room for its answers, and return them, not yet computed.

    Raises:
        Refusal: the request contradicts itself or means another model, too many answers wait, or
            the prompt is too long.
    """
    service.name_of(body.model)
    generation.admit(body.n or 1)
    return await run_in_threadpool(streams_of, service, body, overflow)


def streams_of(service: Service, body: ChatRequest, overflow: str = "error") -> list[Stream]:
    """Render and tokenize the prompt; nothing is computed yet."""
    runner = service.runner
    shared = prompt_arguments(body) | _form(body, callable_tools(body), runner.dialect)
    shared |= {"overflow": overflow, "parallel_calls": body.parallel_tool_calls is not False}
    if body.max_completion_tokens is not None:
        shared["max_tokens"] = body.max_completion_tokens
    if body.top_logprobs and not body.logprobs:
        raise Refusal(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if body.logprobs:
        shared["logprobs"] = body.top_logprobs or 0
    messages = plain_messages(body.messages)
    asked = [{**options, **shared} for options in options_of(service, body)]
    return [service.check_prompt(runner.stream(messages, **options)) for options in asked]


def rendered(runner: Runner, body: ChatRequest) -> str:
    """Return the prompt of a request as a text."""
    return runner.render(plain_messages(body.messages), **prompt_arguments(body))


def prompt_arguments(body: ChatRequest) -> dict[str, Any]:
    """Return what the prompt depends on besides the messages, as the runner's methods take it."""
    listed = [] if body.tool_choice == "none" else body.tools or ()
    tools = [
        tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in listed
    ]
    variables = dict(body.chat_template_kwargs or {})
    if body.enable_thinking is not None:
        variables.setdefault("enable_thinking", body.enable_thinking)
    if body.reasoning_effort == "none":
        variables.setdefault("enable_thinking", False)
    elif body.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", body.reasoning_effort)
    return {"tools": tools, "template": variables, "ending": _ending(body)}


def _ending(body: ChatRequest) -> str:
    """Return what the model writes next, as llama.cpp decides it.

    An assistant's last message is continued unless that is refused
    (``oaicompat_chat_params_parse``, ``tools/server/server-common.cpp`` at 0c1e57098).
    """
    goes_on, begins = body.continue_final_message, body.add_generation_prompt
    last = body.messages[-1]
    if goes_on and begins:
        raise Refusal(
            400,
            "continue_final_message and add_generation_prompt exclude each other: give one",
            param="continue_final_message",
        )
    if goes_on and last.role != "assistant":
        raise Refusal(
            400,
            "continue_final_message needs a last message of the role assistant",
            param="continue_final_message",
        )
    prefilled = last.role == "assistant" and not last.tool_calls and not last.function_call
    if goes_on or (prefilled and goes_on is None and not begins):
        return "continue"
    return "open" if begins is False else "answer"


def callable_tools(body: ChatRequest) -> list[str]:
    """Return the names of the tools that the answer may call.

    Raises:
        Refusal: a choice names a tool that is not declared.
    """
    declared = [] if body.tool_choice == "none" else [t.function.name for t in body.tools or ()]
    match body.tool_choice:
        case NamedTool(function=function):
            chosen = [function.name]
        case AllowedTools(allowed_tools=allowed):
            chosen = [tool.function.name for tool in allowed.tools]
        case _:
            return declared
    if missing := [name for name in chosen if name not in declared]:
        raise Refusal(
            400, f"tool_choice asks for {missing[0]!r}, which tools lacks", param="tool_choice"
        )
    return chosen


def must_call(body: ChatRequest) -> bool:
    """Say whether the answer has to be a call."""
    match body.tool_choice:
        case AllowedTools(allowed_tools=allowed):
            return allowed.mode == "required"
        case choice:
            return choice == "required" or isinstance(choice, NamedTool)


def _form(body: ChatRequest, names: list[str], dialect: Dialect) -> dict[str, Any]:
    """Return the option that binds the answer to calls, to JSON, or to one of them, if any."""
    schema, forced = _answer_schema(body), must_call(body)
    if forced and not names:
        raise Refusal(400, "tool_choice asks for a call, and tools is empty", param="tool_choice")
    if forced or (names and schema is not None):
        if forced and (body.grammar is not None or body.choice is not None):
            raise Refusal(400, "grammar and a tool_choice that must call exclude each other",
                          param="grammar")  # fmt: skip
        tools = [t.model_dump(exclude_none=True) for t in body.tools or ()
                 if t.function.name in names]  # fmt: skip
        several = body.parallel_tool_calls is not False and not isinstance(
            body.tool_choice, NamedTool
        )
        otherwise = None if forced else schema
        grammar = call_grammar(tools, several=several, otherwise=otherwise, dialect=dialect)
        return {"grammar": grammar, "json_schema": None}
    return {} if schema is None else {"json_schema": schema}


def _answer_schema(body: ChatRequest) -> Schema | None:
    match body.response_format:
        case (
            JsonSchemaFormat(json_schema=NamedSchema(schema_=schema))
            | JsonSchemaFormat(schema_=schema)
            | JsonObjectFormat(schema_=schema)
        ):
            found = {"type": "object"} if schema is None else schema
        case _:
            return body.json_schema
    if body.json_schema not in (None, found):
        raise Refusal(400, "response_format and json_schema differ: give one", param="json_schema")
    return found
