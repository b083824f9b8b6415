"""Everything that clients send: honoured, without effect, or refused by its name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from lfm2gguf import Runner
from lfm2gguf.server.conversation import prompt_arguments
from lfm2gguf.server.requests import ChatRequest
from lfm2gguf.server.settings import NEUTRAL, NO_EFFECT
from tests.server.conftest import read, serving

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is this?"}], "temperature": 0, "max_tokens": 8,
}  # fmt: skip
WARNING = "x-lfm2gguf-warning"


@pytest.fixture(scope="module")
def lenient(runner: Runner) -> Iterator[str]:
    with serving(runner, lenient=True, strict_model=True) as url:
        yield url


def chat(url: str, path: str = "/v1/chat/completions", **change: Any) -> httpx.Response:
    return httpx.post(url + path, json={**ASK, **change}, timeout=60)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_what_asks_for_nothing_changes_nothing(url: str) -> None:
    """Of each setting without a field one neutral value, all of them in one request."""
    neutral = {name: values[0] for name, values in NEUTRAL.items() if values}
    nulls = {"tools": None, "n": None, "logit_bias": None, "audio": None, "unheard_of": None}
    service = {name: {"any": "thing"} for name in NO_EFFECT}
    assert text(chat(url, **neutral, **service, **nulls)) == text(chat(url))


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 8.0, "seed": 1.0, "top_k": -1, "stop": "", "logprobs": False},
        {"max_tokens": None, "n_predict": 8, "repeat_last_n": 64, "repetition_penalty": 1.0},
        {"stop": ["", "never"], "seed": -1, "max_completion_tokens": None},
        {"model": "gpt-4o", "add_generation_prompt": True, "continue_final_message": False},
        {"chat_template_kwargs": {}, "reasoning_effort": "low", "lora": [], "stop_token_ids": []},
    ],
)
def test_other_spellings(url: str, change: dict[str, Any]) -> None:
    assert text(chat(url, **change)) == text(chat(url))


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_what_asks_for_something_is_refused_by_its_name(url: str, name: str) -> None:
    answer = chat(url, **{name: "x"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert "--lenient" in error["message"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"enable_thinking": False}, {"enable_thinking": False}),
        ({"enable_thinking": None}, {}),
        ({"enable_thinking": True, "reasoning_effort": "none"}, {"enable_thinking": True}),
        (
            {"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": True}},
            {"enable_thinking": True},
        ),
    ],
)
def test_thinking_as_clients_of_hosted_models_ask_for_it(
    url: str, sent: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert prompt_arguments(ChatRequest(**ASK, **sent))["template"] == expected
    assert text(chat(url, **sent)) == text(chat(url))  # whose template knows of none
    assert chat(url, enable_thinking="no").status_code == 400


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_usage_in_each_chunk(url: str, path: str) -> None:
    """As vLLM's clients ask for it (GuideLLM, AIPerf)."""
    asked = {**ASK, "prompt": "What"}
    asked.pop("prompt" if "chat" in path else "messages")
    asked |= {"stream": True, "n": 2, "ignore_eos": True}

    def usages(**options: Any) -> list[tuple[list[int], dict[str, Any] | None]]:
        body = asked | {"stream_options": options}
        lines = httpx.post(url + path, json=body, timeout=60).text.split("\n\n")
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return [([c["index"] for c in x["choices"]], x.get("usage")) for x in chunks]

    *told, (none, whole) = usages(include_usage=True, continuous_usage_stats=True)
    assert none == []
    assert whole is not None
    for index in range(2):
        each = [usage for choices, usage in told if choices == [index] and usage]
        counts = [usage["completion_tokens"] for usage in each]
        assert counts == sorted(counts)
        assert counts[-1] == 8
        assert all(usage["prompt_tokens"] == whole["prompt_tokens"] for usage in each)
        assert each[-1]["total_tokens"] == whole["prompt_tokens"] + 8
    assert len(told) == sum(usage is not None for _, usage in told)
    assert whole["completion_tokens"] == 16
    without = usages(include_usage=True, continuous_usage_stats=False)
    assert [usage for _, usage in without[:-1]] == [None] * (len(without) - 1)
    assert {usage is None for _, usage in usages(continuous_usage_stats=True)} == {True}


def test_a_lenient_server_passes_over_and_tells(url: str, lenient: str) -> None:
    odd = {"mirostat": 2, "tempature": 1, "a\r\nb": 1}
    options = {"stream_options": {"include_usage": True, "include_cost": True}}
    answer = chat(lenient, **odd, **options)
    assert text(answer) == text(chat(url))
    told = answer.headers[WARNING]
    for name in ("mirostat", "tempature", "stream_options.include_cost", "odd name"):
        assert f"{name} is passed over" in told
    assert WARNING not in chat(lenient).headers
    assert chat(lenient, temperature=-1, mirostat=2).status_code == 400  # that is no setting
    assert chat(lenient, model="other").status_code == 404
    assert chat(lenient, model="tiny").status_code == 200


OWN = {"name": "look", "description": "Looks."}
SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "function": {**OWN, "parameters": SCHEMA}}
FLAT = {"type": "function", **OWN, "parameters": SCHEMA}
CUSTOM = {**OWN, "input_schema": SCHEMA}
HOSTED = [
    ("/v1/chat/completions", {"messages": ASK["messages"]}, FUNCTION, {"type": "web_search"}),
    ("/v1/chat/completions", {"messages": ASK["messages"]}, FUNCTION,
     {"type": "custom", "custom": {"name": "code"}}),
    *(
        ("/v1/responses", {"input": "What?"}, FLAT, tool)
        for tool in (
            {"type": "web_search", "search_context_size": "low"},
            {"type": "file_search", "vector_store_ids": ["v"]},
            {"type": "code_interpreter", "container": {"type": "auto"}},
        )
    ),
    *(
        ("/v1/messages", {"messages": ASK["messages"], "max_tokens": 8}, CUSTOM, tool)
        for tool in (
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
            {"type": "computer_20250124", "name": "computer", "display_width_px": 9,
             "display_height_px": 9},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "ask", "own", "hosted"), HOSTED)
def test_hosted_tools(
    url: str, lenient: str, path: str, ask: Any, own: Any, hosted: dict[str, Any]
) -> None:
    """Refused by their types, or passed over: then the prompt is the same as without them."""
    kind = hosted["type"]

    def sent(to: str, *tools: Any, **more: Any) -> httpx.Response:
        body = {**ask, "tools": [*tools], "temperature": 0, **more}
        return httpx.post(to + path, json=body, timeout=60)

    refused = sent(url, own, hosted)
    assert refused.status_code == 400
    assert "tools.1" in refused.text
    assert f"no tool of type '{kind}'" in refused.text
    assert "--lenient" in refused.text
    assert sent(lenient, own, {"type": 5}).status_code == 400  # that is no tool
    plain, passed = sent(lenient, own), sent(lenient, own, hosted)
    assert passed.status_code == 200, passed.text
    assert passed.headers[WARNING] == f"tools.{kind} is passed over"
    costs = [answer.json()["usage"] for answer in (passed, plain)]
    if "chat" in path:
        assert costs[0]["prompt_tokens"] == costs[1]["prompt_tokens"]
    else:
        assert read(costs[0]) == read(costs[1])


def test_a_choice_that_hosted_tools_alone_could_meet(lenient: str) -> None:
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    any_tool, named = {"type": "any"}, {"type": "tool", "name": "web_search"}
    ask = {"messages": ASK["messages"], "max_tokens": 4}
    for path, fields in (
        ("/v1/messages", {**ask, "tools": [hosted], "tool_choice": any_tool}),
        ("/v1/messages", {**ask, "tools": [CUSTOM, hosted], "tool_choice": named}),
        ("/v1/responses", {"input": "What?", "max_output_tokens": 4, "tools": [FLAT, hosted],
                           "tool_choice": {"type": "web_search_20250305"}}),
        ("/v1/chat/completions", {**ask, "tools": [hosted], "tool_choice": "required"}),
    ):  # fmt: skip
        answer = httpx.post(lenient + path, json=fields, timeout=60)
        assert answer.status_code == 200, answer.text
        assert "tool_choice is passed over" in answer.headers[WARNING]
    both = {**ask, "tools": [CUSTOM, hosted], "tool_choice": any_tool}  # that one can be met
    answer = httpx.post(f"{lenient}/v1/messages", json={**both, "max_tokens": 64}, timeout=60)
    assert "tool_choice" not in answer.headers[WARNING]
    assert answer.json()["content"][-1]["name"] == "look"


CALLED = {"type": "web_search_call", "id": "w", "status": "completed", "action": {}}
USED = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


@pytest.mark.parametrize("kind", ["web_search_call", "mcp_list_tools", "tool_search_output"])
def test_items_of_hosted_tools(url: str, lenient: str, kind: str) -> None:
    """What a service's tools left in a conversation is passed over, the client's own is not."""
    own = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "a river"}
    ask = {"role": "user", "content": "What?"}

    def sent(to: str, *items: Any) -> httpx.Response:
        body = {"input": [*items], "max_output_tokens": 4, "temperature": 0}
        return httpx.post(f"{to}/v1/responses", json=body, timeout=60)

    hosted = {**CALLED, "type": kind}
    assert sent(url, ask, hosted).status_code == 400
    plain, passed = sent(lenient, ask, own, result), sent(lenient, ask, hosted, own, hosted, result)
    assert passed.status_code == 200, passed.text
    assert passed.headers[WARNING] == f"input.{kind} is passed over"
    assert read(passed.json()["usage"]) == read(plain.json()["usage"])
    assert sent(lenient, hosted).status_code == 400  # nothing is left


def test_blocks_of_hosted_tools(url: str, lenient: str) -> None:
    def sent(to: str, *blocks: Any) -> httpx.Response:
        turns = [{"role": "user", "content": "What?"}]
        if blocks:
            turns.append({"role": "assistant", "content": [*blocks]})
        turns.append({"role": "user", "content": "And?"})
        body = {"messages": turns, "max_tokens": 4}
        return httpx.post(f"{to}/v1/messages", json=body, timeout=60)

    text = {"type": "text", "text": "A river."}
    for own in ([text], []):
        assert sent(url, *own, USED, FOUND).status_code == 400
        plain, passed = sent(lenient, *own), sent(lenient, USED, *own, FOUND)
        assert passed.status_code == 200, passed.text
        assert "messages.server_tool_use is passed over" in passed.headers[WARNING]
        assert read(passed.json()["usage"]) == read(plain.json()["usage"])


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_hosted_tools_among_those_allowed(lenient: str, api: str, mode: str) -> None:
    search, named = {"type": "web_search"}, {"type": "function", "name": "look"}
    if api == "chat":
        named = {"type": "function", "function": {"name": "look"}}

    def sent(*among: Any) -> httpx.Response:
        if api == "responses":
            choice = {"type": "allowed_tools", "mode": mode, "tools": [*among]}
            body = {"input": "What?", "max_output_tokens": 64, "tools": [FLAT, search]}
            return httpx.post(
                f"{lenient}/v1/responses", json={**body, "tool_choice": choice}, timeout=60
            )
        inner = {"mode": mode, "tools": [*among]}
        choice = {"type": "allowed_tools", "allowed_tools": inner}
        return chat(lenient, max_tokens=64, tools=[FUNCTION, search], tool_choice=choice)

    both, only = sent(named, search), sent(search)
    for answer in (both, only):
        assert answer.status_code == 200, answer.text
        assert "tool_choice.web_search is passed over" in answer.headers[WARNING]
    if mode == "required":
        assert "look" in both.text.partition("tool_choice")[0]
    said = only.json()
    calls = [item for item in said.get("output", ()) if item["type"] == "function_call"]
    calls += [
        c for part in said.get("choices", ()) for c in part["message"].get("tool_calls") or ()
    ]
    assert not calls  # of the client's own none was allowed


@pytest.mark.parametrize(
    ("odd", "status"),
    [
        ({f"k{i}": 1 for i in range(30_000)}, 400),
        ({"guided_choice": [f"choice {i}" for i in range(30_000)]}, 200),
        ({"logit_bias": {"9" * 5000: 1}}, 400),
        ({"guided_choice": ["\ud800"]}, 200),
        ({"lora": [{"id": 10**30, "scale": 1}]}, 400),
    ],
)
def test_odd_requests_are_answered_at_once(url: str, odd: dict[str, Any], status: int) -> None:
    began = time.process_time()  # of this process, in which the server runs
    body = json.dumps({**ASK, **odd})
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text[:300]
    assert time.process_time() - began < 3  # two of them took 15 s and more


def test_two_names_of_one_setting(url: str) -> None:
    assert chat(url, repeat_penalty=1.5, repetition_penalty=1.5).status_code == 200
    answer = chat(url, repeat_penalty=1.5, repetition_penalty=1.2)
    assert answer.json()["error"]["param"] == "repetition_penalty"


def test_forms_of_answers(url: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    for form in (
        {"json_schema": schema}, {"guided_json": schema}, {"structured_outputs": {"json": schema}},
        {"response_format": {"type": "json_object", "schema": schema}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
        {"response_format": {"type": "json_schema", "schema": schema}},
    ):  # fmt: skip
        jsonschema.validate(json.loads(text(chat(url, **{**form, "max_tokens": 60}))), schema)
    for form in ({"grammar": 'root ::= "x\\"y"'}, {"guided_choice": ['x"y']},
                 {"structured_outputs": {"choice": ['x"y']}}):  # fmt: skip
        assert text(chat(url, **form)) == 'x"y'
    assert chat(url, grammar='root ::= "a"', json_schema=schema).status_code == 400
    for wrong in ({}, {"schema": schema, "json_schema": {"schema": schema}}):
        answer = chat(url, response_format={"type": "json_schema", **wrong})
        assert "json_schema, or schema" in answer.json()["error"]["message"]


def test_how_long_an_answer_is(url: str) -> None:
    def tokens(**change: Any) -> int:
        answer = chat(url, **change)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["completion_tokens"])

    assert tokens(max_tokens=90, min_tokens=90) == 90
    assert tokens(n_predict=4, max_tokens=None, ignore_eos=True) == 4
    assert tokens(max_tokens=90, stop_token_ids=list(range(2048))) == 1
    assert tokens(min_tokens=50, max_tokens=60, grammar='root ::= "a"') <= 2  # at its end


def test_logit_bias_by_text_and_as_pairs(url: str, runner: Runner) -> None:
    first = runner.chat(ASK["messages"], temperature=0.0, max_tokens=1, logprobs=0).logprobs
    assert first
    token, word = first[0].token, first[0].text.decode()
    for bias in ({str(token): False}, [[token, -100]], {word: -100.0}, [[word, False]]):
        assert not text(chat(url, logit_bias=bias)).startswith(word)


def test_timings(url: str) -> None:
    assert chat(url).json()["timings"]["predicted_n"] == 8
    with httpx.stream(
        "POST",
        f"{url}/v1/chat/completions",
        json={**ASK, "stream": True, "timings_per_token": True},
    ) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: {")]
    timed = [chunk["timings"]["predicted_n"] for chunk in map(json.loads, lines)
             if "timings" in chunk]  # fmt: skip
    assert len(timed) > 3
    assert timed == sorted(timed)


# --- conversations ------------------------------------------------------------------------------


def prompt(url: str, *messages: Any, **more: Any) -> str:
    body = {"messages": list(messages), **more}
    answer = httpx.post(f"{url}/apply-template", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prompt"])


USER = {"role": "user", "content": "What?"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def test_roles_and_parts(url: str) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    plain = prompt(url, {"role": "system", "content": "A\nB"}, USER)
    parts = [{"type": "text", "text": "A", **mark}, {"type": "text", "text": "B"}]
    for role in ("system", "developer"):
        assert prompt(url, {"role": role, "content": parts, **mark}, USER) == plain
    said = prompt(url, USER, {"role": "assistant", "content": "No."}, USER)
    for answer in (
        {"content": None, "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}], "audio": None},
    ):
        assert prompt(url, USER, {"role": "assistant", **answer}, USER) == said


def test_calls_however_they_are_written(url: str) -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": "2"}
    called = prompt(url, USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, result)
    as_object = {**CALL, "index": 0, "function": {"name": "f", "arguments": {"x": 1}}}
    as_of_old = {"function_call": CALL["function"]}
    for call, role in (({"tool_calls": [as_object]}, "tool"), (as_of_old, "function")):
        answer = {**result, "role": role, "name": "f"}
        assert prompt(url, USER, {"role": "assistant", **call}, answer) == called


def test_an_answer_that_was_begun_is_continued(url: str, runner: Runner) -> None:
    begun = {"role": "assistant", "content": "It gives"}
    whole, rest = prompt(url, USER), prompt(url, USER, begun)
    assert rest == whole + "It gives"
    assert prompt(url, USER, begun, continue_final_message=True) == rest
    assert prompt(url, USER, begun, add_generation_prompt=True).endswith("<|im_start|>assistant\n")
    assert whole.startswith(prompt(url, USER, add_generation_prompt=False))
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    assert prompt(url, USER, thought) == whole + "<think>Hm"
    named = {"role": "assistant", "content": "", "reasoning": "Hm"}  # as vLLM names it
    assert prompt(url, USER, named) == whole + "<think>Hm"
    assert prompt(url, USER, {**thought, "reasoning": {"any": "thing"}}) == whole + "<think>Hm"
    assert prompt(url, USER, {**thought, "content": "So"}) == whole + "<think>Hm</think>So"
    answer = chat(url, messages=[USER, begun])
    expected = runner.complete(rest, temperature=0.0, max_tokens=8)
    assert text(answer) == expected.text
    for wrong in ({"messages": [USER], "continue_final_message": True},
                  {"messages": [USER, {**begun, "tool_calls": [CALL]}],
                   "continue_final_message": True},
                  {"messages": [USER, begun], "continue_final_message": True,
                   "add_generation_prompt": True}):  # fmt: skip
        assert chat(url, **wrong).status_code == 400


TOOLS = [{"type": "function", "cache_control": {}, "function": {"name": name, "strict": None}}
         for name in ("f", "g")]  # fmt: skip


def test_tools_that_may_be_called(url: str) -> None:
    def called(mode: str, *names: str, **more: Any) -> list[str]:
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
        answer = chat(url, tools=TOOLS, tool_choice=choice, max_tokens=60, **more)
        assert answer.status_code == 200, answer.text
        calls = answer.json()["choices"][0]["message"].get("tool_calls", ())
        return [call["function"]["name"] for call in calls]

    assert set(called("required", "g")) == {"g"}
    assert called("required", "f", parallel_tool_calls=False) == ["f"]
    assert set(called("auto", "g")) <= {"g"}


def test_one_call_where_no_more_are_wanted(runner: Runner) -> None:
    """Of an answer that is not bound to call: it ends behind its first call."""
    marker = runner.tokens.encode(runner.dialect.calls[0], bos=False)[0]
    hot: Any = {"logit_bias": {marker: 12.0}, "temperature": 2.0, "top_k": 0, "top_p": 1.0,
                "min_p": 0.0, "max_tokens": 200, "tools": [{"name": "now"}]}  # fmt: skip
    counts = [
        [len(runner.chat("Hi", seed=seed, parallel_calls=several, **hot).tool_calls)
         for seed in range(6)]
        for several in (True, False)
    ]  # fmt: skip
    assert max(counts[0]) > 1
    assert max(counts[1]) == 1
