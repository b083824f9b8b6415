"""Tools: Python functions or JSON schemas, described to the model and checked on the way back."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from lfm2gguf.chat.schemas import check_schema, schema_problem
from lfm2gguf.chat.tool_calls import ToolCall
from lfm2gguf.errors import OptionError

ToolLike = Callable[..., Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Tool:
    """What the model is told (``schema``), and the function behind it, if there is one."""

    name: str
    schema: Mapping[str, Any]
    function: Callable[..., Any] | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments, without the keywords that are null."""
        given = self.schema.get("function", self.schema).get("parameters") or {}
        return {key: value for key, value in given.items() if value is not None}

    def problem(self, call: ToolCall) -> str | None:
        """Return what is wrong with a call's arguments, or None."""
        schema = {"additionalProperties": False, **self.parameters, "type": "object"}
        return schema_problem(call.arguments, schema, self.name)


def as_tools(tools: Sequence[ToolLike] | None) -> dict[str, Tool]:
    """Return tools by name.

    Raises:
        OptionError: a tool is neither a function nor a schema, two have one name, or a keyword of
            a schema holds what it cannot hold.

    """
    made = [_as_tool(tool) for tool in tools or ()]
    names = [tool.name for tool in made]
    if len(set(names)) < len(names):
        raise OptionError(f"two tools have the same name: {names}")
    return {tool.name: tool for tool in made}


def _as_tool(tool: ToolLike) -> Tool:
    if isinstance(tool, Mapping):
        described = tool.get("function", tool)
        name = described.get("name") if isinstance(described, Mapping) else None
        if not isinstance(name, str):
            raise OptionError(f"a tool's schema needs a name: {dict(tool)!r:.200}")
        check_schema(described.get("parameters") or {}, f"the tool {name!r}: parameters")
        return Tool(name, tool)
    if not callable(tool) or not hasattr(tool, "__name__"):  # such as functools.partial
        raise OptionError(f"{tool!r} is not a tool: give a function or a JSON schema")
    return Tool(tool.__name__, function_schema(tool), tool)


# --- from a function to its schema --------------------------------------------------------

_TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function to a model, from its signature and its Google-style docstring.

    The same as transformers' ``get_json_schema`` for a documented function without ``Returns:``;
    a docstring may be missing here.

    Raises:
        OptionError: a parameter has no type, or one that JSON Schema cannot express.

    """
    name = function.__name__
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise OptionError(f"the tool {name}: {error}; its type hints must be importable") from None
    description, documented = _docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise OptionError(f"the tool {name}: *{parameter.name} cannot be described to a model")
        if parameter.name not in hints:
            raise OptionError(
                f"the tool {name}: its parameter {parameter.name!r} needs a type hint"
            )
        schema = _type_schema(hints[parameter.name], f"{name}({parameter.name})")
        if parameter.name in documented:
            schema["description"] = documented[parameter.name]
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    described = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": described}


def _type_schema(hint: Any, where: str) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _choice([member.value for member in hint], where)
    if origin is None and hint in _TYPES:
        return dict(_TYPES[hint])
    if origin is Literal:
        return _choice(list(arguments), where)
    if origin in (Union, types.UnionType):
        return _union(arguments, where)
    if origin is list:
        return {"type": "array", "items": _type_schema(arguments[0], where)}
    if origin is tuple and ... not in arguments:
        return {"type": "array", "prefixItems": [_type_schema(a, where) for a in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], where)}
    raise OptionError(f"the tool {where}: {hint!r} has no JSON schema; write the schema by hand")


def _choice(values: list[Any], where: str) -> dict[str, Any]:
    if not values or any(type(value) not in _TYPES for value in values):
        raise OptionError(f"the tool {where}: choices must be texts, numbers or booleans")
    kinds = list(dict.fromkeys(_TYPES[type(value)]["type"] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(hints: Sequence[Any], where: str) -> dict[str, Any]:
    if Any in hints:  # Python 3.10 makes Optional[Any] of an Any whose default is None
        return {}
    schemas = [_type_schema(hint, where) for hint in hints if hint is not type(None)]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(set(s) == {"type"} and isinstance(s["type"], str) for s in schemas):
        kinds = sorted({s["type"] for s in schemas})
        schema = {"type": kinds[0] if len(kinds) == 1 else kinds}
    else:
        schema = {"anyOf": schemas}
    if type(None) in hints:
        schema["nullable"] = True
    return schema


_ARGUMENT = re.compile(r"(\w+)(?: \([^)]*\))?:\s*(.*)")


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into its description and its arguments' descriptions."""
    sections = re.split(r"^(Args|Returns|Raises|Yields):\s*$", text, flags=re.MULTILINE)
    arguments: dict[str, str] = {}
    if "Args" in sections:
        block = inspect.cleandoc("\n" + sections[sections.index("Args") + 1])
        name = ""
        for line in filter(str.strip, block.splitlines()):
            match = _ARGUMENT.match(line)
            if match:
                name, arguments[match[1]] = match[1], match[2].strip()
            elif name:
                arguments[name] += " " + line.strip()
    return sections[0].strip(), arguments
