"""Options that several commands take together, as one value: a dataclass whose fields they are."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Let a command take dataclasses: each field becomes an option of the command's own.

    Typer reads a command's signature, and knows nothing of groups. Here each parameter that is
    annotated with a dataclass is replaced by the dataclass's fields, with their annotations and
    defaults; the command gets the value made of them.
    """
    hints = get_type_hints(command, include_extras=True)
    shown: dict[str, inspect.Parameter] = {}
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if dataclasses.is_dataclass(hint):
            groups[parameter.name] = hint
            fields = get_type_hints(hint, include_extras=True)
            options = [_option(f.name, fields[f.name], f.default) for f in dataclasses.fields(hint)]
        else:
            options = [_option(parameter.name, hint, parameter.default)]
        for option in options:
            if option.name in shown:
                raise TypeError(f"{command.__name__} has two options named {option.name}")
            shown[option.name] = option

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            values = {f.name: given.pop(f.name) for f in dataclasses.fields(group)}
            given[name] = group(**values)
        command(**given)

    called.__signature__ = inspect.Signature(list(shown.values()))  # type: ignore[attr-defined]
    called.__annotations__ = {name: option.annotation for name, option in shown.items()}
    return called


def _option(name: str, hint: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=hint)
