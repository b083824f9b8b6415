"""A file's chat templates as the runner uses them: which one, and what it would lose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import Runner, convert
from lfm2gguf.errors import OptionError
from tests.making.models import EXAMPLE

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "where", "parameters": {"type": "object"}}}


def with_templates(folder: Path, templates: Any) -> Path:
    """Convert the example with other chat templates."""
    checkpoint = shutil.copytree(EXAMPLE, folder / "tiny")
    (checkpoint / "chat_template.jinja").unlink()
    config = checkpoint / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": templates}))
    convert(checkpoint, folder / "tiny.gguf", "Q8_0", jobs=1)
    return folder / "tiny.gguf"


def opened(path: Path, **options: Any) -> Runner:
    return Runner(path, device="cpu", threads=1, context=256, **options)


def test_tools_that_the_template_never_mentions_are_listed_or_refused(tmp_path: Path) -> None:
    path = with_templates(tmp_path, CHATML)
    with opened(path) as lfm:
        assert lfm.render("Hi", tools=[TOOL]) == lfm.render(
            [
                {
                    "role": "system",
                    "content": f"List of tools: <|tool_list_start|>[{json.dumps(TOOL)}]"
                    "<|tool_list_end|>",
                },
                {"role": "user", "content": "Hi"},
            ]
        )
    with opened(path, inject_tools=False) as lfm:
        assert "List of tools" not in lfm.render("Hi")
        with pytest.raises(OptionError, match="inject_tools=True"):
            lfm.chat("Hi", tools=[TOOL])


def test_with_tools_the_template_for_tools_is_used(tmp_path: Path) -> None:
    named = {"default": CHATML, "tool_use": "TOOLS {{ tools | tojson }}\n" + CHATML, "rag": "RAG"}
    listed = [{"name": name, "template": text} for name, text in named.items()]
    with opened(with_templates(tmp_path, listed)) as lfm:
        plain = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        assert lfm.render("Hi") == plain
        assert lfm.render("Hi", tools=[TOOL]) == f"TOOLS {json.dumps([TOOL])}\n{plain}"


def test_the_template_for_tools_alone_is_used_for_all(tmp_path: Path) -> None:
    only = [{"name": "tool_use", "template": "{{ tools }} {{ messages[0].content }}"}]
    with opened(with_templates(tmp_path, only)) as lfm:
        assert lfm.render("Hi") == "None Hi"
