"""What ``run`` reads as JSON: functions to call, and a schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.json_text import kind_of, parse_json
from lfm2gguf.text_file import SMALL, read_text_file


def read_tools(path: Path | None) -> list[dict[str, Any]] | None:
    """Read a file of functions: a list, a request's ``{"tools": [...]}``, or a single one.

    Raises:
        OptionError: the file cannot be read, or holds something else.

    """
    if path is None:
        return None
    found = _load(read_text_file(path, "--tools", largest=SMALL), f"--tools: {path}")
    if isinstance(found, dict):
        found = found.get("tools", [found])
    if isinstance(found, list) and found and all(isinstance(tool, dict) for tool in found):
        return found
    raise OptionError(
        f"--tools: {path}: is no list of functions; one looks like "
        '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}'
    )


def schema(given: str | None) -> dict[str, Any] | None:
    """Read a JSON schema: the text itself, or a file that holds it.

    Raises:
        OptionError: it is neither.

    """
    if given is None:
        return None
    inline = given.lstrip().startswith("{")
    text = given if inline else read_text_file(given, "--json-schema", largest=SMALL)
    where = "--json-schema" if inline else f"--json-schema: {given}"
    found = _load(text, where)
    if not isinstance(found, dict):
        raise OptionError(f"{where}: is {kind_of(found)}, not an object; give a schema")
    return found


def _load(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise OptionError(f"{where}: is not JSON: {error}; correct it") from error
