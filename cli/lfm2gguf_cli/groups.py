"""Options that several commands take together, as one value: a dataclass whose fields they are."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from lfm2gguf.errors import OptionError

# What commands write, and what they read that may be written anew.
WRITTEN = ("output", "json_file", "junit", "markdown", "html", "plot", "csv", "write_baseline")
RENEWED = ("baseline", "in_file")

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Let a command take dataclasses: each field becomes an option of the command's own.

    Typer reads a command's signature, and knows nothing of groups. Here each parameter that is
    annotated with a dataclass is replaced by the dataclass's fields, with their annotations and
    defaults; the command gets the value made of them.
    """
    # get_type_hints would wrap those with the default None in another Optional on Python 3.10, and
    # hide the options in them
    hints = inspect.get_annotations(command, eval_str=True)
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
        _refuse_one_file_twice(given)
        for name, group in groups.items():
            values = {f.name: given.pop(f.name) for f in dataclasses.fields(group)}
            given[name] = group(**values)
        command(**given)

    called.__signature__ = inspect.Signature(list(shown.values()))  # type: ignore[attr-defined]
    called.__annotations__ = {name: option.annotation for name, option in shown.items()}
    return called


def _refuse_one_file_twice(given: Mapping[str, Any]) -> None:
    """Refuse two results in one file, and a result in the place of what is read.

    Raises:
        OptionError: saying which file.

    """
    written: dict[str, str] = {}  # the option by the file
    for name in WRITTEN:
        path = given.get(name)
        if not path or str(path) == "-":
            continue
        flag = f"--{name.replace('_', '-')}"
        other = written.setdefault(os.path.realpath(path), flag)
        if other != flag:
            raise OptionError(f"{path}: {other} and {flag} name the same file; give one another")
    for name, value in given.items():
        if written and name not in (*WRITTEN, *RENEWED):
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str | Path) and Path(path).is_file():
                    flag = written.get(os.path.realpath(path), "")
                    if flag:
                        raise OptionError(
                            f"{path}: is what is being read; give {flag} another name"
                        )


def _option(name: str, hint: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=hint)
