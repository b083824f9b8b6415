"""Several results of tools in one turn: all reach the prompt, in order, in each of the APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lfm2gguf import Runner
from lfm2gguf.server.conversation import rendered
from lfm2gguf.server.messages_api import translation as messages_api
from lfm2gguf.server.messages_api.request import MessagesRequest
from lfm2gguf.server.requests import ChatRequest
from lfm2gguf.server.responses_api import translation as responses_api
from lfm2gguf.server.responses_api.request import ResponsesRequest

RESULTS = {"a": "sunny", "b": "rain, then snow", "c": ""}
# As examples/tiny-lfm2/chat_template.jinja has it, which is the form of LFM2's own.
TURNS = """<|im_start|>user
Where?<|im_end|>
<|im_start|>assistant
<|tool_call_start|>[look(at="a"), look(at="b"), look(at="c")]<|tool_call_end|><|im_end|>
<|im_start|>tool
<|tool_response_start|>sunny<|tool_response_end|><|im_end|>
<|im_start|>tool
<|tool_response_start|>rain, then snow<|tool_response_end|><|im_end|>
<|im_start|>tool
<|tool_response_start|><|tool_response_end|><|im_end|>
"""
TEXT = "<|im_start|>user\nAnd now?\nShort.<|im_end|>\n"
ASK = {"role": "user", "content": "Where?"}
AND = ["And now?", "Short."]


def chat(*, text: bool) -> ChatRequest:
    calls = [
        {"id": f"call_{at}", "type": "function",
         "function": {"name": "look", "arguments": json.dumps({"at": at})}}
        for at in RESULTS
    ]  # fmt: skip
    results = [
        {"role": "tool", "tool_call_id": f"call_{at}", "content": result}
        for at, result in RESULTS.items()
    ]
    asked: list[Any] = [ASK, {"role": "assistant", "tool_calls": calls}, *results]
    if text:
        parts = [{"type": "text", "text": part} for part in AND]
        asked.append({"role": "user", "content": parts})
    return ChatRequest.model_validate({"messages": asked})


def responses(*, text: bool) -> ChatRequest:
    asked: list[Any] = [ASK]
    for at in RESULTS:
        arguments = json.dumps({"at": at})
        asked.append({"type": "function_call", "call_id": at, "name": "look",
                      "arguments": arguments})  # fmt: skip
    for at, result in RESULTS.items():
        asked.append({"type": "function_call_output", "call_id": at, "output": result})
    if text:
        parts = [{"type": "input_text", "text": part} for part in AND]
        asked.append({"role": "user", "content": parts})
    return responses_api.as_chat(ResponsesRequest.model_validate({"input": asked}))


def messages(*, text: bool, first: bool = False, apart: bool = False) -> ChatRequest:
    calls = [{"type": "tool_use", "id": at, "name": "look", "input": {"at": at}} for at in RESULTS]
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": "a", "content": RESULTS["a"]},
        {"type": "tool_result", "tool_use_id": "b",
         "content": [{"type": "text", "text": RESULTS["b"]}]},
        {"type": "tool_result", "tool_use_id": "c"},
    ]  # fmt: skip
    texts = [{"type": "text", "text": part} for part in AND] if text else []
    blocks = [*texts, *results] if first else [*results, *texts]
    users = [[block] for block in blocks] if apart else [blocks]
    asked: list[Any] = [ASK, {"role": "assistant", "content": calls}]
    asked += [{"role": "user", "content": content} for content in users]
    given = {"messages": asked, "max_tokens": 1}
    return messages_api.as_chat(MessagesRequest.model_validate(given))


@pytest.mark.parametrize("api", [chat, responses, messages])
def test_all_results_reach_the_prompt_in_order(api: Any, runner: Runner) -> None:
    for text in (False, True):
        prompt = rendered(runner, api(text=text))
        turns = TURNS + (TEXT if text else "")
        assert prompt == f"<|startoftext|>{turns}<|im_start|>assistant\n"


def test_anthropics_other_orders(runner: Runner) -> None:
    """A result belongs behind its call, wherever in the message a text stands."""
    assert rendered(runner, messages(text=True, first=True)) == rendered(runner, chat(text=True))
    assert rendered(runner, messages(text=False, apart=True)) == rendered(runner, chat(text=False))
