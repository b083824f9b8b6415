"""Tools reach the model whatever the file's templates are; the members' own are the oracle."""

from __future__ import annotations

from typing import Any

import pytest

from lfm2gguf.chat.template import Template
from lfm2gguf.chat.template_set import BARE_LIST, MARKED_LIST, TemplateSet
from lfm2gguf.errors import OptionError
from tests.making.realdata import real

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Où?", "parameters": {}}}
    for name in ("here", "there")
]
ASK = {"role": "user", "content": "Where?"}
SYSTEM = {"role": "system", "content": "Be brief."}
FORMS = {"LFM2-8B-A1B": MARKED_LIST, "LFM2.5-Instruct": BARE_LIST}


def both(source: str, tool_list: tuple[str, str] | None = MARKED_LIST) -> TemplateSet:
    template = Template(source, bos="<s>")
    return TemplateSet(template, template, tool_list)


@pytest.mark.parametrize("messages", [[ASK], [SYSTEM, ASK]])
@pytest.mark.parametrize("member", FORMS)
def test_tools_are_listed_as_the_member_s_own_template_does(
    member: str, messages: list[dict[str, Any]]
) -> None:
    own = both(real(f"chat_templates/{member}.jinja").read_text("utf-8"))
    assert own.with_tools.writes_tools
    written = both(CHATML, FORMS[member]).prompt_of(messages, TOOLS)
    assert written == own.prompt_of(messages, TOOLS)
    assert '"name": "there"' in written


def test_parts_of_a_system_message_are_kept() -> None:
    source = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    messages = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, ASK]
    prompt = both(source, BARE_LIST).prompt_of(messages, TOOLS)
    assert prompt.startswith('Be brief.\nList of tools: [{"type"')


def test_without_tools_nothing_is_listed() -> None:
    assert "List of tools" not in both(CHATML).prompt_of([ASK], [])


def test_tools_without_a_place_are_refused_where_asked_for() -> None:
    with pytest.raises(OptionError, match="inject_tools=True"):
        both(CHATML, None).prompt_of([ASK], TOOLS)
    assert both(CHATML, None).prompt_of([ASK], [])


def test_with_tools_the_template_for_tools() -> None:
    tools = Template("with {{ tools | length }}")
    templates = TemplateSet(Template("plain"), Template("with {{ tools | tojson }}"))
    assert not tools.writes_tools
    assert templates.prompt_of([ASK], []) == "plain"
    assert templates.prompt_of([ASK], TOOLS).startswith('with [{"type": "function"')


@pytest.mark.parametrize("tool", [{"name": "f"}, {"type": "function", "function": {"name": "f"}}])
def test_a_tool_may_be_given_bare(tool: dict[str, Any]) -> None:
    assert '"name": "f"' in both(CHATML).prompt_of([ASK], [tool])
