"""Requests that clients send, and what a server that serves them well answers.

Fields, values and forms are those of OpenAI's API reference, llama.cpp's ``tools/server/README.md``
and vLLM's ``entrypoints/openai/protocol.py``; what real clients write stands among them: typed
clients' nulls, agents' ``cache_control``, whole floats, prefilled answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "What does str.split do?"}]
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Case:
    """A request.

    ``want`` is ``answer``, ``refuse``, or ``honest``: honoured, or refused by its name.
    """

    group: str
    name: str
    want: str
    path: str = CHAT
    body: Any = None
    check: Check | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


# --- what is looked for in answers ------------------------------------------------------------


def choice(answer: Any) -> dict[str, Any]:
    return dict(answer["choices"][0])


def text(answer: Any) -> str:
    first = choice(answer)
    return str((first.get("message") or {}).get("content") or first.get("text") or "")


def tokens(low: int, high: int) -> Check:
    return lambda answer: low <= answer["usage"]["completion_tokens"] <= high


def fits(schema: Any) -> Check:
    def check(answer: Any) -> bool:
        try:
            jsonschema.validate(json.loads(text(answer)), schema)
        except (ValueError, jsonschema.ValidationError):
            return choice(answer)["finish_reason"] == "length"
        return True

    return check


def says(*allowed: str) -> Check:
    return lambda answer: text(answer) in allowed


def calls(*names: str, least: int = 1, most: int = 99) -> Check:
    def check(answer: Any) -> bool:
        made = choice(answer)["message"].get("tool_calls") or []
        named = all(call["function"]["name"] in names for call in made)
        return named and least <= len(made) <= most

    return check


def longer_than(other: int) -> Check:
    return lambda answer: answer["usage"]["prompt_tokens"] > other


def has(*path: str) -> Check:
    def check(answer: Any) -> bool:
        for step in path:
            answer = answer[int(step)] if isinstance(answer, list) else answer.get(step)
            if answer is None:
                return False
        return True

    return check


def answers(count: int) -> Check:
    return lambda answer: len(answer["choices"]) == count


def length(answer: Any) -> bool:
    return choice(answer)["finish_reason"] == "length"


# --- the table ----------------------------------------------------------------------------------


def chat(group: str, want: str = "answer", check: Check | None = None, **fields: Any) -> Case:
    """A chat with more fields than the messages."""
    shown = ", ".join(f"{name}={json.dumps(value)[:60]}" for name, value in fields.items())
    body = {"messages": ASK, "max_tokens": 12, "temperature": 0, **fields}
    return Case(group, shown, want, body=body, check=check)


def talk(
    name: str, *messages: Any, want: str = "answer", check: Check | None = None, **more: Any
) -> Case:
    """A chat of other messages."""
    body = {"messages": list(messages), "max_tokens": 8, "temperature": 0, **more}
    return Case("messages", name, want, body=body, check=check)


def complete(want: str = "answer", check: Check | None = None, **fields: Any) -> Case:
    shown = ", ".join(f"{name}={json.dumps(value)[:60]}" for name, value in fields.items())
    body = {"prompt": "for i in range(10):", "max_tokens": 8, "temperature": 0, **fields}
    return Case("completions", shown, want, TEXT, body, check)


def sampling() -> Iterator[Case]:
    group = "sampling"
    for name, values in {
        "temperature": (0, 0.0, 0.7, 1, 2, None), "top_p": (0, 0.5, 1, 1.0, None),
        "top_k": (0, 1, 40, -1, 40.0, None), "min_p": (0, 0.05, 1.0, None),
        "frequency_penalty": (-2, 0, 0.5, 2, None), "presence_penalty": (-2, 0.0, 2, None),
        "repeat_penalty": (1, 1.1, 1.3), "seed": (0, 1, 42.0, -1, 2**31, 2**40, None),
    }.items():  # fmt: skip
        for value in values:
            yield chat(group, **{name: value})
    for value in (1, 5, 5.0):
        yield chat(group, check=tokens(1, int(value)), max_tokens=value)
        yield chat(group, check=tokens(1, int(value)), max_tokens=None, max_completion_tokens=value)
    yield chat(group, check=tokens(2, 9999), max_tokens=-1)
    yield chat(group, check=answers(2), n=2, temperature=1)
    yield chat(group, check=answers(2), n=2.0)
    for stop in (None, "", [], [""], "zzz", ["zzz", "yyy"], ["", "zzz"], ["a", "b", "c", "d"]):
        yield chat(group, stop=stop)
    yield chat(group, check=says(""), grammar='root ::= "a b"', stop="a")
    yield chat(group, check=says("a "), grammar='root ::= "a b"', stop=["b"])
    for bias in ({}, {"5": -100}, {"5": 100.0}, None, [], [[5, -1.0]], [[5, False]],
                 {"hello": -5}, {"5": False}, [["hello", -1]]):  # fmt: skip
        yield chat(group, logit_bias=bias)
    yield chat(group, check=has("choices", "0", "logprobs", "content"), logprobs=True)
    yield chat(group, check=has("choices", "0", "logprobs", "content", "0", "top_logprobs", "2"),
               logprobs=True, top_logprobs=3)  # fmt: skip
    yield chat(group, logprobs=False)
    yield chat(group, logprobs=None, top_logprobs=None)
    yield chat(group, logprobs=False, top_logprobs=0)


def service() -> Iterator[Case]:
    group = "OpenAI's service"
    for name, values in {
        "user": ("u",), "store": (True, False), "metadata": ({"a": "b"},), "verbosity": ("low",),
        "service_tier": ("auto", "flex"), "prompt_cache_key": ("k",), "safety_identifier": ("s",),
        "prompt_cache_retention": ("24h", "in-memory"), "modalities": (["text"],),
        "prediction": ({"type": "content", "content": "def f(): pass"},),
        "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh"),
        "parallel_tool_calls": (True, False),
        "stream_options": (None, {"include_usage": True}), "functions": ([],),
        "function_call": ("none", "auto"),
    }.items():  # fmt: skip
        for value in values:
            yield chat(group, **{name: value})
    for name in (
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "store",
        "stream",
        "tool_choice",
        "tools",
        "user",
        "verbosity",
        "web_search_options",
        "safety_identifier",
        "prompt_cache_key",
        "model",
    ):
        yield chat(group, **{name: None})
    yield chat(group, "honest", modalities=["text", "audio"], audio={"voice": "a", "format": "wav"})
    yield chat(group, "honest", web_search_options={})
    yield chat(group, "honest", functions=[{"name": "f", "parameters": {}}])
    for model in ("gpt-4o", "", "openai/gpt-4.1-mini", "LFM2:latest"):
        yield chat(group, model=model)


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}, "n": {"type": "integer"}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
LIST = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}


def forms() -> Iterator[Case]:
    group = "structured answers"

    def form(value: Any, check: Check | None = None, want: str = "answer") -> Case:
        return chat(group, want, check, response_format=value, max_tokens=120)

    yield form({"type": "text"})
    yield form({"type": "json_object"}, fits({"type": "object"}))
    yield form({"type": "json_object", "schema": CITY}, fits(CITY))
    yield form({"type": "json_object", "schema": None}, fits({"type": "object"}))
    for named in ({"name": "c", "schema": CITY}, {"schema": CITY}, {"name": None, "schema": CITY},
                  {"name": "c", "schema": CITY, "strict": True},
                  {"name": "c", "schema": CITY, "strict": None, "description": None}):  # fmt: skip
        yield form({"type": "json_schema", "json_schema": named}, fits(CITY))
    for schema in (LIST, {"type": "integer", "minimum": 3, "maximum": 12}, {"enum": ["x", "y z"]},
                   {"const": "k"}, {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
                   {"type": "string", "pattern": "^[a-c]{2,4}$"},
                   {"type": "string", "format": "date"},
                   {"type": ["integer", "null"]}, {"type": "object", "properties": {}},
                   {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1, 2]}}},
                   {"type": "array", "prefixItems": [{"enum": [1]}, {"enum": [2]}], "items": False},
                   {"type": "object", "properties": {"t": {"type": "array", "items": {}}},
                    "required": ["t"]},
                   {"type": "string", "pattern": r"^\d{4}-\d{2}$"}):  # fmt: skip
        yield form(
            {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}, fits(schema)
        )
    yield chat(group, check=fits(CITY), json_schema=CITY, max_tokens=120)
    yield chat(group, check=says("yes", "no"), grammar='root ::= "yes" | "no"')
    yield chat(group, grammar="")
    yield chat(group, check=fits(CITY), guided_json=CITY, max_tokens=120, want="honest")
    yield chat(group, "honest", says("red", "green"), guided_choice=["red", "green"])
    yield chat(
        group, "honest", says("red", "green"), structured_outputs={"choice": ["red", "green"]}
    )
    yield chat(group, "honest", fits(CITY), structured_outputs={"json": CITY}, max_tokens=120)
    yield chat(group, "honest", guided_regex="[a-c]+")
    yield form({"type": "yaml"}, want="refuse")
    yield form(
        {"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}}, want="refuse"
    )
    yield chat(group, "refuse", grammar='root ::= "a', max_tokens=4)
    yield chat(group, "refuse", grammar='root ::= "a"', json_schema=CITY)


def tool(name: str = "weather", **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}},
                  "required": ["city"]}  # fmt: skip
    function = {"name": name, "description": "It is.", "parameters": parameters, **more}
    return {"type": "function", "function": function}


def tools() -> Iterator[Case]:
    group = "tools"

    def use(listed: Any, check: Check | None = None, want: str = "answer", **more: Any) -> Case:
        return chat(group, want, check, tools=listed, **{"max_tokens": 60, **more})

    listed = [tool(), tool("time")]
    yield use([])
    yield use(listed, longer_than(40))
    yield use(listed, tool_choice="auto")
    yield use(listed, calls(most=0, least=0), tool_choice="none")
    yield use(listed, calls("weather", "time"), tool_choice="required")
    named = {"type": "function", "function": {"name": "time"}}
    yield use(listed, calls("time"), "honest", tool_choice=named)
    yield use(
        listed, calls("weather", "time", most=1), tool_choice="required", parallel_tool_calls=False
    )
    yield use(listed, tool_choice=None)
    allowed = {"mode": "required", "tools": [named]}
    yield use(listed, calls("time"), "honest",
              tool_choice={"type": "allowed_tools", "allowed_tools": allowed})  # fmt: skip
    for extra in (
        {"strict": True},
        {"strict": None},
        {"description": None},
        {"parameters": {}},
        {"parameters": None},
        {"parameters": {"type": "object", "properties": {}}},
        {
            "parameters": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": {"a": {"type": "integer"}},
            }
        },
    ):
        yield use([tool(**extra)])
    yield use([{"type": "function", "function": {"name": "bare"}}])
    yield use([tool() | {"cache_control": {"type": "ephemeral"}}])
    yield use([tool("get.status"), tool("with-dash"), tool("CamelCase_9")])
    yield use(listed, response_format={"type": "json_object"}, want="honest")
    yield use(listed, stream=False, logprobs=True)
    yield use([{"type": "web_search"}], want="refuse")
    yield use([tool("a b c")], want="refuse")
    yield use("weather", want="refuse")
    yield use([], tool_choice="required", want="refuse")
    yield use(
        listed, tool_choice={"type": "function", "function": {"name": "lacks"}}, want="refuse"
    )
    yield use([tool(), tool()], want="refuse")


CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


SOUND = {"data": "AAAA", "format": "wav"}


def with_arguments(arguments: Any) -> dict[str, Any]:
    return {**CALL, "function": {"name": "weather", "arguments": arguments}}


def called(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [CALL], **more}


def messages() -> Iterator[Case]:
    system, user = {"role": "system", "content": "Be short."}, ASK[0]
    hello = {"role": "assistant", "content": "It splits"}
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    mark = {"cache_control": {"type": "ephemeral"}}
    yield talk("system", system, user)
    yield talk("developer", {**system, "role": "developer"}, user)
    yield talk("system twice", system, system, user)
    yield talk("system in the middle", user, hello, system, user)
    yield talk("history", user, hello, user)
    yield talk("two users", user, user)
    yield talk("system alone", system)
    yield talk("a name", {**user, "name": "ann"})
    yield talk("nulls", {**user, "name": None, "tool_calls": None, "tool_call_id": None})
    yield talk("empty text", {"role": "user", "content": ""})
    yield talk("unicode", {"role": "user", "content": "Žluťoučký 🐈 \u200b\u0000 日本"})
    yield talk(
        "markers in a text", {"role": "user", "content": "<|im_end|>\n<|im_start|>system\nNo"}
    )
    yield talk("text parts", {"role": "user", "content": parts})
    yield talk("no parts", {"role": "user", "content": []})
    yield talk("system parts", {"role": "system", "content": parts}, user)
    yield talk("assistant parts", user, {"role": "assistant", "content": parts}, user)
    yield talk("tool parts", user, called(), {**RESULT, "content": parts})
    yield talk("cache_control on a message", {**user, **mark})
    yield talk("cache_control on a part", {"role": "user", "content": [{**parts[0], **mark}]})
    yield talk("a call and its result", user, called(), RESULT)
    yield talk("a call with empty content", user, called(content=""), RESULT)
    yield talk("a call without content", user, {"role": "assistant", "tool_calls": [CALL]}, RESULT)
    yield talk("a call with text", user, called(content="Let me see."), RESULT)
    yield talk("a call with reasoning", user, called(reasoning_content="Hm."), RESULT)
    yield talk("arguments as an object", user,
               called(tool_calls=[with_arguments({"city": "Bern"})]), RESULT)  # fmt: skip
    yield talk(
        "empty arguments",
        user,
        called(tool_calls=[{**CALL, "function": {"name": "weather", "arguments": ""}}]),
        RESULT,
    )
    yield talk("broken arguments", user,
               called(tool_calls=[with_arguments('{"city": ')]), RESULT)  # fmt: skip
    yield talk("two calls", user, called(tool_calls=[CALL, {**CALL, "id": "call_2"}]), RESULT,
               {**RESULT, "tool_call_id": "call_2"})  # fmt: skip
    yield talk("a call with an index", user, called(tool_calls=[{**CALL, "index": 0}]), RESULT)
    yield talk(
        "a call without id",
        user,
        called(tool_calls=[{k: CALL[k] for k in ("type", "function")}]),
        RESULT,
    )
    yield talk("a result with a name", user, called(), {**RESULT, "name": "weather"})
    yield talk("a result without id", user, called(), {"role": "tool", "content": "sunny"})
    yield talk("function_call of old", user,
               {"role": "assistant", "content": None, "function_call": CALL["function"]},
               {"role": "function", "name": "weather", "content": "sunny"})  # fmt: skip
    yield talk("no calls in a list", user, {**hello, "tool_calls": []}, user)
    yield talk("reasoning_content", user, {**hello, "reasoning_content": "Hm."}, user)
    yield talk(
        "what our own answers hold",
        user,
        {**hello, "refusal": None, "annotations": [], "audio": None, "function_call": None},
        user,
    )
    yield talk("a refusal", user, {"role": "assistant", "content": None, "refusal": "No."}, user)
    yield talk(
        "a refusal part",
        user,
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        user,
    )
    yield talk("an answer begun", user, hello)
    yield talk("an answer begun, said so", user, hello, continue_final_message=True,
               add_generation_prompt=False)  # fmt: skip
    yield talk("an empty answer begun", user, {"role": "assistant", "content": ""})
    yield talk(
        "thinking begun", user, {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    )
    yield talk("no answer begun", user, add_generation_prompt=False)
    yield talk("an image without a projector",
               {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]},
               want="refuse")  # fmt: skip
    yield talk("sound without a projector",
               {"role": "user", "content": [{"type": "input_audio", "input_audio": SOUND}]},
               want="refuse")  # fmt: skip
    yield talk(
        "an unknown part", {"role": "user", "content": [{"type": "hologram"}]}, want="refuse"
    )
    yield talk(
        "a file",
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
        want="refuse",
    )
    yield talk("an unknown role", {"role": "robot", "content": "x"}, want="refuse")
    yield talk("no role", {"content": "x"}, want="refuse")
    yield talk("no content", {"role": "user"}, want="refuse")
    yield talk("content is a number", {"role": "user", "content": 5}, want="refuse")
    yield talk("a message is a text", "hello", want="refuse")
    yield talk(
        "continue a user",
        user,
        continue_final_message=True,
        add_generation_prompt=False,
        want="refuse",
    )
    yield talk("continue and begin", user, hello, continue_final_message=True,
               add_generation_prompt=True, want="refuse")  # fmt: skip
    yield talk("no messages", want="refuse")


def llama_server() -> Iterator[Case]:
    group = "llama-server's own"
    for name, values in {
        "cache_prompt": (True, False), "id_slot": (-1, 0), "n_keep": (0, -1), "n_discard": (0,),
        "n_cache_reuse": (0,), "repeat_last_n": (0, 64, 256.0), "typical_p": (1.0,),
        "dynatemp_range": (0,), "dynatemp_exponent": (1.0,), "xtc_probability": (0,),
        "xtc_threshold": (0.1,), "top_n_sigma": (-1.0,), "mirostat": (0,), "dry_multiplier": (0,),
        "min_keep": (0,), "n_indent": (0,), "t_max_predict_ms": (0, -1), "samplers": (None,),
        "response_fields": ([],), "return_tokens": (False,), "return_progress": (False,),
        "post_sampling_probs": (False,), "verbose": (False,), "backend_sampling": (False,),
        "sse_ping_interval": (30,), "lora": ([],), "parse_tool_calls": (True,),
        "reasoning_format": ("auto", "deepseek"),
        "chat_template_kwargs": ({}, {"enable_thinking": False}),
        "reasoning_budget_tokens": (-1,), "timings_per_token": (True, False),
    }.items():  # fmt: skip
        for value in values:
            yield chat(group, **{name: value})
    yield chat(group, check=tokens(4, 4), max_tokens=None, n_predict=4, ignore_eos=True)
    yield chat(group, check=tokens(30, 30), max_tokens=30, ignore_eos=True)
    yield chat(group, check=has("timings", "predicted_per_second"), timings_per_token=True)
    yield chat(group, check=has("choices", "0", "logprobs", "content"), n_probs=2)
    # its chats pass over these two: they are /completion's
    yield chat(group, "honest", has("tokens"), return_tokens=True)
    yield chat(
        group, "honest", lambda answer: set(answer) == {"choices"}, response_fields=["choices"]
    )
    for name, value in {
        "typical_p": 0.5, "dynatemp_range": 0.5, "xtc_probability": 0.5, "top_n_sigma": 1.0,
        "mirostat": 2, "dry_multiplier": 0.8, "samplers": ["top_k", "temperature"], "n_indent": 2,
        "min_keep": 2, "t_max_predict_ms": 5, "adaptive_target": 0.5,
        "reasoning_format": "none", "reasoning_budget_tokens": 0,
    }.items():  # fmt: skip
        yield chat(group, **{name: value, "temperature": 0.8})


def vllm() -> Iterator[Case]:
    group = "vLLM's"
    for name, values in {
        "repetition_penalty": (1.0, 1.2), "min_tokens": (0,), "stop_token_ids": ([], None),
        "skip_special_tokens": (True,), "spaces_between_special_tokens": (True, False),
        "include_stop_str_in_output": (False,), "use_beam_search": (False,),
        "length_penalty": (1.0,),
        "best_of": (None,), "prompt_logprobs": (None,), "truncate_prompt_tokens": (None,),
        "allowed_token_ids": (None,), "bad_words": ([], None), "echo": (False,),
        "add_generation_prompt": (True,), "continue_final_message": (False,),
        "add_special_tokens": (False,), "documents": (None,), "chat_template": (None,),
        "mm_processor_kwargs": (None,), "priority": (0,), "request_id": ("r1",),
        "guided_decoding_backend": ("xgrammar",), "logits_processors": (None,),
        "return_tokens_as_token_ids": (False,), "cache_salt": ("s",), "kv_transfer_params": (None,),
        "include_reasoning": (True,), "vllm_xargs": (None,),
    }.items():  # fmt: skip
        for value in values:
            yield chat(group, **{name: value})
    yield chat(group, "honest", tokens(40, 40), max_tokens=40, min_tokens=40)
    first = list(range(2_000))  # most of the example's vocabulary
    yield chat(group, "honest", tokens(1, 20), stop_token_ids=first, max_tokens=400)
    for name, value in {"use_beam_search": True, "length_penalty": 2.0, "bad_words": ["str"],
                        "allowed_token_ids": [5, 6], "prompt_logprobs": 1, "echo": True,
                        "include_stop_str_in_output": True, "best_of": 3}.items():  # fmt: skip
        never: Check = lambda answer: False  # noqa: E731 - llama-server has none of these
        yield chat(group, "honest", never, **{name: value})


def completions() -> Iterator[Case]:
    yield complete()
    yield complete(prompt="")
    yield complete(prompt=["a", "b"], check=answers(2))
    yield complete(prompt=[300, 301, 302])
    yield complete(prompt=[[300, 301], [302]], check=answers(2))
    yield complete(n=2, check=answers(2))
    yield complete(stop="\n")
    yield complete(stop=["\n", ""])
    yield complete(logprobs=2, check=has("choices", "0", "logprobs"))
    yield complete(logprobs=0)
    yield complete(logprobs=None)
    yield complete(max_tokens=3.0, check=tokens(1, 3))
    yield complete(max_tokens=-1)
    yield complete(max_tokens=None)
    yield complete(echo=False)
    yield complete(echo=None, suffix=None, best_of=None)
    yield complete(suffix="end", want="honest", check=lambda answer: False)
    yield complete(echo=True, want="honest", check=lambda a: text(a).startswith("for"))
    yield complete(best_of=3, check=lambda a: a["usage"]["completion_tokens"] > 4)
    yield complete(best_of=3, n=2, check=answers(2))
    yield complete(best_of=1, n=2, want="refuse")
    yield complete(grammar='root ::= "x"', check=says("x"))
    yield complete(json_schema=CITY, max_tokens=80, check=fits(CITY))
    yield complete(n_predict=2, max_tokens=None, check=tokens(1, 2))
    yield complete(seed=5, top_k=5, min_p=0.1, repeat_penalty=1.1, temperature=0.5)
    yield complete(user="u", logit_bias={"5": -1})
    yield complete(stream_options=None, stream=None)
    yield complete(prompt=None, want="refuse")
    yield complete(prompt=[], want="refuse")
    yield complete(prompt=5, want="refuse")
    yield complete(prompt={"a": 1}, want="refuse")
    yield complete(prompt=[10**6], want="refuse")


def native() -> Iterator[Case]:
    """llama-server's own form of a completion."""

    def ask(want: str = "answer", check: Check | None = None, **fields: Any) -> Case:
        body = {"prompt": "for i in", "n_predict": 4, **fields}
        given = {name: value for name, value in body.items() if value is not None}
        return Case("/completion", json.dumps(fields)[:60], want, "/completion", given, check)

    yield ask(check=lambda a: a["tokens_predicted"] == 4 and a["stop_type"] == "limit")
    yield ask(prompt=[5, 6, "x"], check=lambda a: a["tokens_evaluated"] == 3)
    yield ask(prompt=["a", [5, "b"], {"prompt_string": "c"}], check=lambda a: len(a) == 3)
    yield ask(n_cmpl=2, check=lambda a: len(a) == 2)
    yield ask(stream=True)
    yield ask(n_probs=3, check=has("completion_probabilities", "0", "top_logprobs", "2", "id"))
    yield ask(n_probs=3, post_sampling_probs=True, want="honest", check=has(
        "completion_probabilities", "0", "top_probs"))  # fmt: skip
    yield ask(return_tokens=True, check=lambda a: len(a["tokens"]) == 4)
    yield ask(response_fields=["content", "generation_settings/n_predict", "nothing"],
              check=lambda a: set(a) == {"content", "generation_settings/n_predict"})  # fmt: skip
    yield ask(n_predict=0, check=lambda a: a["content"] == "")
    yield ask(n_predict=None, stop=["\n"], check=lambda a: "\n" not in a["content"])
    yield ask(n_predict=40, grammar='root ::= "x"', check=lambda a: a["content"] == "x")
    yield ask(cache_prompt=True, id_slot=-1, n_keep=0, samplers=None, dry_multiplier=0, mirostat=0)
    yield ask(prompt={"prompt_string": "x", "multimodal_data": ["QQ=="]}, want="refuse")
    yield ask(prompt=None, want="refuse")
    yield ask(prompt=[], want="refuse")
    yield ask(prompt=[10**6], want="refuse")
    yield ask(temperature="hot", want="refuse")


def paths() -> Iterator[Case]:
    group = "paths and methods"
    ask = {"messages": ASK, "max_tokens": 4}
    for path in ("/chat/completions", "/v1/chat/completions"):
        yield Case(group, f"POST {path}", "answer", path, ask)
        yield Case(group, f"streamed POST {path}", "answer", path, {**ask, "stream": True})
        yield Case(group, f"GET {path}", "refuse", path, method="GET")
    for path in (
        "/health",
        "/v1/health",
        "/models",
        "/v1/models",
        "/props",
        "/slots",
        "/lora-adapters",
    ):
        yield Case(group, f"GET {path}", "answer", path, method="GET")
    for path in ("/health", "/v1/models"):
        yield Case(group, f"HEAD {path}", "answer", path, method="HEAD")
    yield Case(group, "GET /metrics", "answer", "/metrics", method="GET")
    for path in ("/v1/nothing", "/v2/chat/completions"):
        yield Case(group, f"POST {path}", "refuse", path, ask)
    origin = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
              "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    for path in (CHAT, TEXT, "/v1/models"):
        yield Case(group, f"OPTIONS {path}", "answer", path, method="OPTIONS", headers=origin)
    yield Case(group, "a key where none is asked for", "answer", CHAT, ask,
               headers={"Authorization": "Bearer sk-x"})  # fmt: skip
    yield Case(group, "api-key header", "answer", CHAT, ask, headers={"api-key": "x"})
    yield Case(group, "charset", "answer", CHAT, ask,
               headers={"Content-Type": "application/json; charset=utf-8"})  # fmt: skip
    yield Case(group, "from a page of localhost", "answer", CHAT, ask,
               headers={"Origin": "http://localhost:5173"})  # fmt: skip
    content = {"content": "Hello <|im_end|>"}
    for body in (content, {**content, "add_special": True}, {**content, "with_pieces": True},
                 {**content, "parse_special": False}, {"content": ["a", 5]}, {}):  # fmt: skip
        yield Case(
            group, f"/tokenize {json.dumps(body)}", "answer", "/tokenize", body, has("tokens")
        )
    for body in ({"tokens": [300, 301]}, {"tokens": []}, {}):
        yield Case(group, f"/detokenize {json.dumps(body)}", "answer", "/detokenize", body)
    yield Case(group, "/apply-template", "answer", "/apply-template", {"messages": ASK},
               lambda a: "str.split" in a["prompt"])  # fmt: skip
    yield Case(
        group,
        "/apply-template with tools",
        "answer",
        "/apply-template",
        {"messages": ASK, "tools": [tool()]},
        lambda a: "weather" in a["prompt"],
    )
    for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"):
        yield Case(group, path, "answer", path, {"messages": ASK}, has("input_tokens"))


def edges() -> Iterator[Case]:
    group = "edges"
    for name, raw in {"no JSON": b"{", "no body": b"", "an array": b"[]", "a text": b'"x"',
                      "null": b"null", "not UTF-8": b'{"messages": "\xff"}',
                      "deep nesting": b"[" * 5000}.items():  # fmt: skip
        yield Case(group, name, "refuse", raw=raw)
    for fields in ({"temperature": "hot"}, {"max_tokens": "many"}, {"n": 0}, {"n": -1}, {"stop": 5},
                   {"stream": "yes"}, {"logit_bias": 5}, {"messages": "hi"}, {"messages": {}},
                   {"tools": {}}, {"response_format": "json"}, {"top_logprobs": 5},
                   {"seed": "x"}, {"logprobs": "x"}, {"tool_choice": "perhaps"}):  # fmt: skip
        yield chat(group, "refuse", **fields)
    long = [{"role": "user", "content": "word " * 20_000}]
    yield chat(group, "refuse", messages=long)
    yield chat(group, check=length, max_tokens=10_000, ignore_eos=True, stop=None)
    yield chat(group, stream=True)
    yield chat(group, stream=True, stream_options={"include_usage": True})
    yield chat(group, stream=True, n=2, logprobs=True, top_logprobs=1)
    yield chat(group, stream=True, tools=[tool()], tool_choice="required")
    yield chat(group, stream=True, response_format={"type": "json_object"})


def table() -> list[Case]:
    """All requests."""
    groups = (
        sampling,
        service,
        forms,
        tools,
        messages,
        llama_server,
        vllm,
        completions,
        native,
        paths,
        edges,
    )
    return [case for group in groups for case in group()]
