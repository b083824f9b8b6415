"""OpenAI's own client, over a socket."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest

from lfm2gguf import Runner
from tests.making.runners import CALL, literally
from tests.server.conftest import serving

GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0}
# Completed greedily by tokens that lead by 0.2 nats: how a batch is cut must not decide.
PROMPT = "for i in range(10):"
ASK: list[Any] = [{"role": "user", "content": "What does str.split do?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}


def test_a_chat_is_the_runners(client: openai.OpenAI, runner: Runner) -> None:
    answer = client.chat.completions.create(messages=ASK, max_tokens=20, **GREEDY)
    expected = runner.chat(ASK, temperature=0.0, max_tokens=20)
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == expected.finish_reason
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "tiny"


def test_a_stream_adds_up(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=ASK, max_tokens=20, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            messages=ASK, max_tokens=20, stream=True,
            stream_options={"include_usage": True}, **GREEDY,
        )
    )  # fmt: skip
    *spoken, last = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert text == whole.choices[0].message.content
    assert spoken[0].choices[0].delta.role == "assistant"
    assert spoken[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in spoken)
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_asynchronous_client(url: str, client: openai.OpenAI) -> None:
    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as one:
            answers = await asyncio.gather(*(
                one.chat.completions.create(messages=ASK, max_tokens=12, **GREEDY)
                for _ in range(6)
            ))  # fmt: skip
            texts = [answer.choices[0].message.content for answer in answers]
            stream = await one.chat.completions.create(
                messages=ASK, max_tokens=12, stream=True, **GREEDY
            )
            texts.append("".join([c.choices[0].delta.content or "" async for c in stream]))
            return texts

    whole = client.chat.completions.create(messages=ASK, max_tokens=12, **GREEDY)
    assert set(asyncio.run(main())) == {whole.choices[0].message.content}


def test_several_answers_with_a_seed(client: openai.OpenAI) -> None:
    # Which requests meet in a step changes the last bits, and one draw in many thousands lies so
    # close to the next token: none of this seed's does.
    def draw() -> list[str | None]:
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, n=3, seed=11, temperature=1.5, max_tokens=12
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    first = draw()
    assert len(set(first)) > 1
    assert draw() == first
    chunks = client.chat.completions.create(
        model="tiny", messages=ASK, n=3, seed=11, temperature=1.5, max_tokens=12, stream=True
    )
    texts = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(texts.values()) == first


def test_stop_and_length(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=ASK, max_tokens=20, **GREEDY)
    text = whole.choices[0].message.content or ""
    stop = text.split()[2]
    cut = client.chat.completions.create(messages=ASK, max_tokens=20, stop=[stop], **GREEDY)
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    short = client.chat.completions.create(messages=ASK, max_completion_tokens=3, **GREEDY)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 3


def test_logprobs(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"messages": ASK, "max_tokens": 6, **GREEDY}
    answer = client.chat.completions.create(logprobs=True, top_logprobs=3, **options)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    for entry in logprobs.content:
        assert entry.logprob == entry.top_logprobs[0].logprob
        assert len(entry.top_logprobs) == 3
        assert bytes(entry.bytes or []).decode() == entry.token
    chunks = client.chat.completions.create(logprobs=True, top_logprobs=3, stream=True, **options)
    streamed = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    assert sum(len(part.content or []) for part in streamed) == len(logprobs.content)


def test_an_answer_bound_to_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"],
        "additionalProperties": False,
    }
    bound: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    answer = client.chat.completions.create(messages=ASK, response_format=bound, **GREEDY)
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)
    plain: Any = {"type": "json_object"}
    answer = client.chat.completions.create(
        messages=ASK, response_format=plain, max_tokens=200, **GREEDY
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_tools_that_must_be_called(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    tools: Any = [WEATHER]
    for choice in ("required", named):
        answer = client.chat.completions.create(
            messages=ASK, tools=tools, tool_choice=choice, parallel_tool_calls=False, **GREEDY
        )
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert call.function.name == "weather"
        arguments = json.loads(call.function.arguments)
        jsonschema.validate(arguments, WEATHER["function"]["parameters"])
        streamed: Any = client.chat.completions.create(
            messages=ASK, tools=tools, tool_choice=choice, parallel_tool_calls=False, stream=True,
            **GREEDY,
        )  # fmt: skip
        calls = [c for chunk in streamed for c in chunk.choices[0].delta.tool_calls or ()]
        assert [(c.index, c.function.name) for c in calls] == [(0, "weather")]
        assert json.loads(calls[0].function.arguments) == arguments


def test_a_result_goes_back(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
    }  # fmt: skip
    messages: list[Any] = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    tools: Any = [WEATHER]
    answer = client.chat.completions.create(messages=messages, tools=tools, max_tokens=8, **GREEDY)
    plain = client.chat.completions.create(messages=ASK, tools=tools, max_tokens=8, **GREEDY)
    assert answer.usage is not None
    assert plain.usage is not None
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens


def test_what_the_model_thinks_has_its_own_field(
    runner: Runner, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example does not think by itself: a grammar makes it."""
    thinking = literally("<think>Hm. So?</think>\n\nThis.")
    defaults = runner.defaults.changed(grammar=thinking)
    monkeypatch.setattr(runner, "defaults", defaults)
    answer = client.chat.completions.create(messages=ASK, **GREEDY)
    message: Any = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("This.", "Hm. So?")
    chunks = list(client.chat.completions.create(messages=ASK, stream=True, **GREEDY))
    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "Hm. So?"
    assert "".join(d.content or "" for d in deltas) == "This."


@pytest.mark.parametrize(
    ("given", "said", "called"),
    [
        ({"tools": [TIME]}, "Yes.", ["get_time"]),
        ({}, "Yes." + CALL, []),
        ({"tools": [TIME], "tool_choice": "none"}, "Yes." + CALL, []),
        ({"tools": [WEATHER]}, "Yes." + CALL, []),
    ],
)
def test_calls_the_model_makes_by_itself(
    runner: Runner,
    client: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch,
    given: Any,
    said: str,
    called: list[str],
) -> None:
    """Calls of what was declared are calls; all else is text."""
    monkeypatch.setattr(
        runner, "defaults", runner.defaults.changed(grammar=literally("Yes." + CALL))
    )
    choice = client.chat.completions.create(messages=ASK, **given, **GREEDY).choices[0]
    assert choice.message.content == said
    assert choice.finish_reason == ("tool_calls" if called else "stop")
    assert [call.function.name for call in choice.message.tool_calls or ()] == called
    chunks = list(client.chat.completions.create(messages=ASK, stream=True, **given, **GREEDY))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == said
    names = [call.function.name for delta in deltas for call in delta.tool_calls or ()]
    assert names == called


def test_functions_as_of_old(
    runner: Runner, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call comes as ``function_call``, by itself or forced, whole and streamed, and goes back."""
    create: Any = client.chat.completions.create
    weather, time = WEATHER["function"], TIME["function"]
    forced = {"functions": [time, weather], "function_call": {"name": "weather"}}
    free = {"functions": [time, weather]}
    for given, name, said in ((forced, "weather", None), (free, "get_time", "Yes.")):
        if said:
            text = literally(said + CALL + CALL)  # no second call: the form has no place for it
            monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=text))
        choice = create(messages=ASK, **given, **GREEDY).choices[0]
        assert choice.finish_reason == "function_call"
        assert choice.message.content == said
        assert choice.message.tool_calls is None
        call = choice.message.function_call
        assert call.name == name
        assert set(json.loads(call.arguments)) == {"city"}
        chunks = list(create(messages=ASK, stream=True, **given, **GREEDY))
        deltas = [chunk.choices[0].delta for chunk in chunks]
        (streamed,) = [delta.function_call for delta in deltas if delta.function_call]
        assert streamed.model_dump() == call.model_dump()
        assert "".join(delta.content or "" for delta in deltas) == (said or "")
        assert chunks[-1].choices[0].finish_reason == "function_call"
        back = {"role": "function", "name": name, "content": "sunny"}
        again = [*ASK, choice.message.model_dump(exclude_none=True), back]
        assert create(messages=again, max_tokens=2, **given, **GREEDY).usage
    none = create(messages=ASK, **free, function_call="none", **GREEDY).choices[0]
    assert none.message.content == "Yes." + CALL + CALL  # no call is wanted: that is text
    assert none.message.function_call is None


def test_functions_as_of_old_are_tools_to_the_prompt(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    ask = {"messages": ASK, "max_tokens": 1, **GREEDY}
    old = create(functions=[WEATHER["function"]], function_call="auto", **ask)
    new = create(tools=[WEATHER], tool_choice="auto", **ask)
    assert old.usage.prompt_tokens == new.usage.prompt_tokens
    assert create(functions=[], tools=[WEATHER], function_call="auto", **ask).usage == new.usage
    functions = {"functions": [WEATHER["function"]]}
    for wrong, param in (
        ({**functions, "tools": [WEATHER]}, "tools"),
        ({**functions, "function_call": "auto", "tool_choice": "required"}, "tool_choice"),
        ({**functions, "function_call": {"name": "other"}}, "function_call"),
        ({"function_call": {"name": "weather"}}, "function_call"),
        ({"functions": [{"name": "no name"}]}, "functions.0.name"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create(**wrong, **ask)
        assert refused.value.param == param, refused.value


def test_a_stored_call_with_broken_arguments_blocks_nothing(client: openai.OpenAI) -> None:
    call: Any = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": '},
    }
    messages: Any = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "the arguments are not JSON"},
    ]
    answer = client.chat.completions.create(messages=messages, max_tokens=2, **GREEDY)
    assert answer.usage


def test_completions(client: openai.OpenAI, runner: Runner) -> None:
    expected = runner.complete(PROMPT, temperature=0.0, max_tokens=10)
    options: dict[str, Any] = {"max_tokens": 10, **GREEDY}
    answer = client.completions.create(prompt=PROMPT, **options)
    assert answer.choices[0].text == expected.text
    two = client.completions.create(prompt=[PROMPT, "import "], logprobs=1, **options)
    assert two.choices[0].text == expected.text
    logprobs = two.choices[1].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or ()) == two.choices[1].text
    tokens = runner.tokenize(PROMPT)
    assert client.completions.create(prompt=tokens, **options).choices[0].text == expected.text
    chunks = client.completions.create(prompt=PROMPT, stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected.text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "lfm2gguf"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.models.retrieve("other")
    for name in ("gpt-4o", ""):  # what clients have configured for another server
        answer = client.chat.completions.create(model=name, messages=ASK, max_tokens=1)
        assert answer.model == "tiny"


def test_embeddings_are_not_for_every_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="made to write"):
        client.embeddings.create(model="tiny", input="Hi")


def test_embeddings(embedding_model: Runner) -> None:
    expected = embedding_model.embed(["one", "another"], kind=None)
    with serving(embedding_model) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as one:
        both = one.embeddings.create(model="tiny", input=["one", "another"])
        for found, vector in zip(both.data, expected, strict=True):
            np.testing.assert_allclose(found.embedding, vector, atol=1e-6)
        # the client asks for base64 by itself; a plain list is the other way
        plain = one.embeddings.create(model="tiny", input="one", encoding_format="float")
        np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-6)
        coded = one.embeddings.create(model="tiny", input="one", encoding_format="base64")
        data: Any = coded.data[0].embedding
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(data), "<f4"), expected[0])


def test_images(vision_model: Runner, picture: bytes) -> None:
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    part: Any = {"type": "image_url", "image_url": {"url": address}}
    messages: list[Any] = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    with serving(vision_model) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as one:
        answer = one.chat.completions.create(messages=messages, max_tokens=3, **GREEDY)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 80
        for bad in ("https://example.org/a.png", "file:///etc/passwd", "/etc/passwd"):
            part["image_url"]["url"] = bad
            with pytest.raises(openai.BadRequestError):
                one.chat.completions.create(messages=messages, **GREEDY)
        messages[0]["content"] = [{"type": "image", "path": "/etc/passwd"}]
        with pytest.raises(openai.BadRequestError):
            one.chat.completions.create(messages=messages, **GREEDY)
