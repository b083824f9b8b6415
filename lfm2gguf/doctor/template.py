"""The chat template: whether it renders, what it loses, and how often it writes BOS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from lfm2gguf.chat.environment import environment as jinja_environment
from lfm2gguf.chat.tool_calls import ToolCall, write_calls
from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject
from lfm2gguf.errors import MissingDependencyError
from lfm2gguf.install import install_command
from lfm2gguf.members import ARCHITECTURES

KEY = "tokenizer.chat_template"
PROBE = "probe_4711"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROBE}]
TOOL = {
    "type": "function",
    "function": {
        "name": PROBE,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {}},
    },
}
RESULT = [
    {"role": "user", "content": "Use the tool."},
    {"role": "assistant", "content": write_calls([ToolCall("f", {})])},
    {"role": "tool", "content": PROBE},
]
# transformers keeps that of chat_template.jinja, and so does llama.cpp's converter (gguf/vocab.py)
BOM = "\N{BYTE ORDER MARK}"
SPECIAL = re.compile(r"<\|[\w-]+\|>")

Render = Callable[..., str]


def templates(subject: Subject) -> Iterator[Finding]:
    """Examine every template of the file: the default one, and those with a name."""
    found = {key: subject.get(key) for key in subject.metadata if key.startswith(KEY)}
    sources = {key: text for key, text in found.items() if isinstance(text, str)}
    if KEY not in sources and subject.architecture in ARCHITECTURES and subject.generates:
        yield Finding(
            "template-missing", Severity.WARNING, KEY,
            "there is no chat template; runners will guess one",
            "put chat_template.jinja beside config.json and convert again (a base model that is "
            "not meant to chat needs none)",
        )  # fmt: skip
    try:
        environment = jinja_environment()
    except MissingDependencyError:
        if sources:
            yield Finding(
                "template-not-examined", Severity.NOTE, KEY,
                "the chat template was not rendered: Jinja2 is not installed",
                install_command("run"),
            )  # fmt: skip
        return
    for key, source in sources.items():
        yield from _examine(subject, key, source, _renderer(subject, environment, source))


def facts(subject: Subject) -> Iterator[str]:
    """Say what the template was not written for."""
    source = subject.get(KEY)
    if subject.generates and isinstance(source, str) and "tool" not in source:
        yield (
            "its chat template never mentions tools: lfm2gguf's run and serve list them in the "
            "system message, in the family's form"
        )


def _examine(subject: Subject, key: str, source: str, render: Render) -> Iterator[Finding]:
    try:
        text = render(messages=QUESTION)
    except Exception as error:  # a template may raise anything
        yield Finding(
            "template-does-not-render", Severity.ERROR, key,
            f"fails on a system and a user message: {_line(error)}",
            "correct the template (compare with the original model's), and convert again",
        )  # fmt: skip
        return
    if PROBE not in text:
        yield Finding(
            "template-drops-messages", Severity.ERROR, key, "loses the user's message",
            "correct the template (compare with the original model's), and convert again",
        )  # fmt: skip
    if text.startswith(BOM):
        yield Finding(
            "template-byte-order-mark", Severity.WARNING, key,
            "begins every prompt with a byte-order mark (U+FEFF), which stands before BOS",
            "save the template as UTF-8 without one, and convert again",
        )  # fmt: skip
    if "tool" in source:  # else nobody meant it to: see facts
        yield from _tools(key, render)
    yield from _bos(subject, key, text)
    yield from _tokens(subject, key, text)


def _tools(key: str, render: Render) -> Iterator[Finding]:
    lost = {
        "the tools it is given": _loses(render, messages=QUESTION[:1], tools=[TOOL]),
        "the tools' results": _loses(render, messages=RESULT),
    }
    if parts := [part for part, is_lost in lost.items() if is_lost]:
        yield Finding(
            "template-drops-tools", Severity.WARNING, key,
            f"loses {' and '.join(parts)}; a model behind it cannot call any",
            "use the original model's template, if the model was trained to call tools",
        )  # fmt: skip


def _loses(render: Render, **variables: Any) -> bool:
    try:
        return PROBE not in render(**variables)
    except Exception:  # a template may raise anything
        return True


def _bos(subject: Subject, key: str, text: str) -> Iterator[Finding]:
    """Find a template that writes BOS twice.

    Once is right, though ``add_bos_token`` be true: llama.cpp's programs take the one that they
    would add away from a rendered prompt (common/chat.cpp), and plain text needs it.
    """
    bos = subject.special("bos")
    if bos and text.startswith(bos + bos):
        yield Finding(
            "bos-doubled", Severity.ERROR, key, f"writes {bos} twice",
            "take one of them out of the template",
        )  # fmt: skip


def _tokens(subject: Subject, key: str, text: str) -> Iterator[Finding]:
    known = {token for token, _ in subject.tokens}
    if missing := sorted(set(SPECIAL.findall(text)) - known):
        yield Finding(
            "template-token", Severity.ERROR, key,
            f"writes {', '.join(missing)}, which the vocabulary does not have",
            "use the template that belongs to the vocabulary, or add the tokens and train them",
        )  # fmt: skip


def _renderer(subject: Subject, environment: Any, source: str) -> Render:
    always: dict[str, Any] = {f"{kind}_token": subject.special(kind) for kind in ("bos", "eos")}
    always |= {"tools": None, "add_generation_prompt": True}

    def render(**variables: Any) -> str:
        return str(environment.from_string(source).render({**always, **variables}))

    return render


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
