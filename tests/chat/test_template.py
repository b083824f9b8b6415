"""Templates render as transformers renders them; what they would lose is written in."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.chat import environment as jinja
from lfm2gguf.chat.template import Template
from lfm2gguf.chat.tool_calls import ToolCall, parse_calls
from lfm2gguf.errors import GGUFError, OptionError
from tests.golden.template_cases import CASES, DAY, TOKENS
from tests.making.realdata import real

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "templates.json").read_text("utf-8"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2" / "chat_template.jinja"
NAMES = sorted(GOLDEN["templates"])


def load(name: str) -> Template:
    path = EXAMPLE if name == "tiny-lfm2" else real(f"chat_templates/{name}.jinja")
    source = path.read_text("utf-8")
    return Template(
        source, bos=TOKENS["bos_token"], eos=TOKENS["eos_token"], pad=TOKENS["pad_token"]
    )


class FixedDay(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> FixedDay:
        return cls.fromisoformat(DAY)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_rendered_as_transformers_does(
    name: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jinja, "datetime", FixedDay)
    arguments = {"add_generation_prompt": True, **CASES[case]}
    expected = GOLDEN["templates"][name][case]
    if expected is None:
        with pytest.raises(OptionError, match="template"):
            load(name).render(**arguments)
    else:
        assert load(name).render(**arguments) == expected


@pytest.mark.parametrize("name", NAMES)
def test_earlier_calls_are_in_the_prompt_whatever_the_template(name: str) -> None:
    call = {"name": "f", "arguments": '{"x": "1", "y": true}'}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
        {"role": "tool", "content": "2"},
    ]
    prompt = load(name).prompt(messages)
    span = prompt.split("<|tool_call_start|>")[1].split("<|tool_call_end|>")[0]
    assert parse_calls(span) == [ToolCall("f", {"x": "1", "y": True})]
    assert prompt.count("<|startoftext|>") == 1
    assert "null" not in prompt
    assert "None" not in prompt


@pytest.mark.parametrize("name", NAMES)
def test_the_last_answer_keeps_its_thinking_in_a_tool_loop(name: str) -> None:
    answer = {"role": "assistant", "thinking": "Hm.", "content": "Calling."}
    messages = [{"role": "user", "content": "?"}, answer, {"role": "tool", "content": "2"}]
    assert "<think>Hm.</think>Calling." in load(name).prompt(messages)


def test_a_text_is_a_user_s_message() -> None:
    template = Template("{{ messages[0].role }}:{{ messages[0].content }}")
    assert template.prompt("Hi") == "user:Hi"


@pytest.mark.parametrize(
    "messages",
    [[], [{}], ["Hi"], [{"role": "user", "content": 3}], [{"role": 1, "content": ""}]],
)
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    with pytest.raises(OptionError, match="message"):
        Template("x").prompt(messages)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].__init__.__globals__ }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_hostile_or_failing_template_ends_in_an_error(source: str) -> None:
    template = Template(source)
    with pytest.raises(OptionError, match="refuses"):
        template.prompt("Hi")


def test_a_template_that_is_no_jinja() -> None:
    with pytest.raises(GGUFError, match="compile"):
        Template("{% if %}")


def test_rich_objects_do_not_reach_the_template() -> None:
    template = Template("{{ messages[0].content }}{{ x }}")
    message = {"role": "user", "content": "a"}
    assert template.render([message], x=Path("/etc/passwd")) == f"a<{type(Path()).__name__}>"


@pytest.mark.parametrize("arguments", ['{"x": ', "[1]", '{"x": ' + "[" * 100_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_stored_call_with_broken_arguments_blocks_nothing(name: str, arguments: str) -> None:
    calls = [{"function": {"name": "g", "arguments": "{}"}}]
    calls.append({"function": {"name": "f", "arguments": arguments}})
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "error: arguments are not JSON"},
    ]
    assert f"[g(), f({arguments})]" in load(name).prompt(messages)
