"""What ``run`` reads as JSON: tools and a schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lfm2gguf.chat.tools import as_tools
from lfm2gguf.errors import OptionError
from lfm2gguf_cli.json_input import read_tools, schema

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("value", [[ADD], {"tools": [ADD], "messages": []}, ADD, [ADD["function"]]])
def test_tools_in_the_forms_that_people_have(value: object, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(value))
    assert list(as_tools(read_tools(path))) == ["add"]


@pytest.mark.parametrize("text", ["[]", "3", '["add"]', '{"tools": 3}', "{", "[" * 100_000])
def test_what_is_no_list_of_tools(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"--tools: .*tools\.json"):
        read_tools(path)


def test_a_schema_is_given_as_text_or_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object"}')
    assert schema('{"type": "object"}') == schema(str(tmp_path / "s.json")) == {"type": "object"}
    assert schema(None) is None
    for bad in ("{", str(tmp_path / "absent.json"), str(tmp_path)):
        with pytest.raises(OptionError, match="--json-schema"):
            schema(bad)
