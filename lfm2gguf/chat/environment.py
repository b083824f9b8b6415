"""Jinja as chat templates expect it.

The settings are those of transformers 5.23, ``utils/chat_template_utils.py``. A template is code
from wherever its file came from, so it runs in Jinja's immutable sandbox.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import Any

from lfm2gguf.errors import MissingDependencyError


@functools.cache
def environment() -> Any:
    """Return the environment that compiles chat templates (a ``jinja2`` environment).

    Raises:
        MissingDependencyError: Jinja2 is not installed.

    """
    try:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependencyError(
            'Jinja2 is needed for chat templates: pip install "lfm2gguf[run]"'
        ) from error

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's tokens for training: here, just its body."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def fail(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        """Return plain JSON, as chat templates want it; Jinja's own filter escapes HTML."""
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    result = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = fail
    result.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return result
