"""``/v1/responses`` over a socket, by OpenAI's client and against its models."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from lfm2gguf import Runner
from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.runner import Stream
from tests.making.runners import CALL, literally

GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0}
ASK = "What does str.split do?"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TEXT_EVENTS = [
    "response.created", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "response.output_text.delta", "response.output_text.done",
    "response.content_part.done", "response.output_item.done",
]  # fmt: skip


def events_of(client: openai.OpenAI, **asked: Any) -> list[dict[str, Any]]:
    """The events as they are on the wire, each valid as OpenAI's own model, in sequence."""
    body = {"stream": True, **GREEDY, **asked}
    with client.responses.with_streaming_response.create(**body) as response:
        lines = [line for line in response.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line[0] == "d"]
    assert names == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)
    return events


def shape(events: list[dict[str, Any]]) -> list[str]:
    """The events' types, those of one kind in a row as one."""
    types = [event["type"] for event in events]
    return [type for i, type in enumerate(types) if i == 0 or type != types[i - 1]]


def test_a_text(client: openai.OpenAI, runner: Runner) -> None:
    expected = runner.chat(ASK, temperature=0.0, max_tokens=300)
    asked = {"input": ASK, "max_output_tokens": 300, "metadata": {"a": "b"}, **GREEDY}
    raw = client.responses.with_raw_response.create(**asked)
    answer = Response.model_validate_json(raw.text)
    assert answer.output_text == expected.text
    assert (answer.status, answer.incomplete_details) == ("completed", None)
    assert (answer.store, answer.metadata) == (False, {"a": "b"})  # type: ignore[attr-defined]
    assert answer.usage is not None
    assert answer.usage.input_tokens == expected.usage.prompt_tokens
    assert answer.usage.output_tokens == expected.usage.completion_tokens
    short = client.responses.create(input=ASK, max_output_tokens=3, **GREEDY)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


def test_the_events_of_a_text(client: openai.OpenAI) -> None:
    whole = client.responses.create(input=ASK, max_output_tokens=8, **GREEDY)
    events = events_of(client, input=ASK, max_output_tokens=8)
    assert shape(events) == [*TEXT_EVENTS, "response.incomplete"]
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text == whole.output_text
    last = events[-1]["response"]
    assert [item["id"] for item in last["output"]] == [events[2]["item"]["id"]]
    assert last["output"][0]["content"][0]["text"] == text
    with client.responses.stream(input=ASK, max_output_tokens=300, **GREEDY) as stream:
        final = stream.get_final_response()
    assert final.output_text.startswith(text)


def test_log_probabilities(client: openai.OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    asked: dict[str, Any] = {"input": ASK, "max_output_tokens": 5, "top_logprobs": 2}
    answer = client.responses.create(include=include, **asked, **GREEDY)
    item: Any = answer.output[0]
    tokens = item.content[0].logprobs
    assert len(tokens) == 5
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    events = events_of(client, **asked)
    parts = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert [t["token"] for part in parts for t in part] == [t.token for t in tokens]
    done = next(e for e in events if e["type"] == "response.output_text.done")
    assert [t["token"] for t in done["logprobs"]] == [t.token for t in tokens]


def test_a_call_and_its_output(client: openai.OpenAI) -> None:
    tools: Any = [WEATHER]
    asked: dict[str, Any] = {"input": ASK, "tools": tools, "tool_choice": "required"}
    answer = client.responses.create(parallel_tool_calls=False, **asked, **GREEDY)
    (call,) = answer.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city"}
    named: Any = {"type": "function", "name": "weather"}
    events = events_of(client, **{**asked, "tool_choice": named})
    assert shape(events) == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    (made,) = events[-1]["response"]["output"]
    assert made == events[-2]["item"]
    assert made["arguments"] == call.arguments
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    conversation: Any = [{"role": "user", "content": ASK}, call.model_dump(), output]
    count = client.responses.input_tokens.count
    both = [count(input=given, tools=tools, model="tiny") for given in (ASK, conversation)]
    answer = client.responses.create(input=conversation, max_output_tokens=2, **GREEDY)
    assert answer.usage is not None
    assert both[0].input_tokens < both[1].input_tokens


def test_what_the_model_thinks_and_calls(
    runner: Runner, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three items in one answer, whole and streamed; the next request takes them back."""
    said = literally("<think>Hm.</think>\n\nYes." + CALL)
    monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=said))
    tools: Any = [{**WEATHER, "name": "get_time"}]
    answer = client.responses.create(input=ASK, tools=tools, **GREEDY)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert answer.output_text == "Yes."
    events = events_of(client, input=ASK, tools=tools)
    assert "response.reasoning_text.done" in shape(events)
    output = events[-1]["response"]["output"]
    assert output == [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert [item["type"] for item in output] == [item.type for item in answer.output]
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    said = literally("Noon.")
    monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=said))
    back: Any = {"type": "function_call_output", "call_id": output[2]["call_id"], "output": "12"}
    conversation: Any = [{"role": "user", "content": ASK}, *output, back]
    again = client.responses.create(input=conversation, instructions="Be brief.", **GREEDY)
    assert again.output_text == "Noon."


def test_an_answer_bound_to_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    bound: Any = {"format": {"type": "json_schema", "name": "it", "schema": schema}}
    answer = client.responses.create(input=ASK, text=bound, **GREEDY)
    assert isinstance(json.loads(answer.output_text)["n"], int)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: nothing is stored here"),
        ({"conversation": "conv_1"}, "conversation: nothing is stored here"),
        ({"background": True}, "background: nothing is stored here"),
        ({"tools": [{"type": "web_search"}]}, "tools.0: .* no tool of type 'web_search'"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0: this server knows"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.*content.0"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "b"}}, "tool_choice"),
        ({"n": 2}, "n: "),
    ],
)
def test_what_is_refused_is_named(client: openai.OpenAI, asked: Any, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.responses.create(extra_body={"input": ASK, **asked}, **GREEDY)


def test_a_failure_on_the_way_is_told(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(stream: Stream) -> Any:
        for piece in [piece async for piece in iterate(stream)][:2]:
            yield piece
        raise RuntimeFailureError("the device is gone")

    iterate = Stream.__aiter__
    monkeypatch.setattr(Stream, "__aiter__", failing)
    events = events_of(client, input=ASK, max_output_tokens=3)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["message"] == "the device is gone"
    assert events[-1]["response"]["error"]["message"] == "the device is gone"
