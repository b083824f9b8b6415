"""Jinja as chat templates expect it.

The settings are those of transformers 5.23, ``utils/chat_template_utils.py``. A template is code
from wherever its file came from, so it runs in Jinja's immutable sandbox, and within the bounds
of :mod:`lfm2gguf.chat.bounds`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lfm2gguf.chat import bounds
from lfm2gguf.errors import MissingDependencyError
from lfm2gguf.install import install_command

# Of Jinja's filters those that no chat template needs, and that are slow on long texts.
LEFT_OUT = ("wordwrap", "urlize", "striptags", "pprint", "xmlattr")
_EACH, _BUILT, _JOINED = "lfm2gguf_each", "lfm2gguf_built", "lfm2gguf_joined"


@functools.cache
def environment() -> Any:
    """Return the environment that compiles chat templates (a ``jinja2`` environment).

    Its templates raise :class:`lfm2gguf.chat.bounds.TooMuch` where they take too much.

    Raises:
        MissingDependencyError: Jinja2 is not installed.

    """
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
    except ImportError as error:
        raise MissingDependencyError(
            f"Jinja2 is needed for chat templates: {install_command('run')}"
        ) from error

    def fail(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        """Return plain JSON, as chat templates want it; Jinja's own filter escapes HTML."""
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    result = _bounded_sandbox()(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation(), loopcontrols]
    )
    result.filters["tojson"] = tojson
    for name in LEFT_OUT:
        del result.filters[name]
    del result.globals["lipsum"]
    result.filters = {name: _counted(name, f) for name, f in result.filters.items()}
    result.filters |= {
        _EACH: bounds.each,
        _BUILT: bounds.built,
        _JOINED: lambda parts: bounds.concat(map(str, bounds.built(parts))),
    }
    result.globals["raise_exception"] = fail
    result.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return result


def _generation() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's tokens for training: here, just its body."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is a step, and makes nothing too large."""
    extra = int(hasattr(function, "jinja_pass_arg"))  # a context before its value

    @functools.wraps(function)
    def filtered(*args: Any, **options: Any) -> Any:
        bounds.check_call(name, *args[extra:], *options.values())
        result = function(*args, **options)
        if name in ("batch", "slice", "groupby"):  # these nest, too
            return bounds.built(list(result))
        return result

    return filtered


def _bounded_sandbox() -> Any:
    """Return the class of environments whose templates count what they do."""
    from jinja2 import Template, Undefined
    from jinja2.runtime import LoopContext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Metered(Template):
        def render(self, *args: Any, **variables: Any) -> str:
            with bounds.metered():
                return super().render(*args, **variables)

    class Bounded(ImmutableSandboxedEnvironment):
        template_class = Metered
        intercepted_binops = frozenset(("*", "**", "%", "+", "-", "//", "/"))
        concat = staticmethod(bounds.concat)  # type: ignore[assignment,unused-ignore]

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings, finalize=self._written)

        @staticmethod
        def _written(value: Any) -> Any:
            """Check what is to be written as a text."""
            if not isinstance(value, str | int | float | Undefined):
                bounds.size_of(value)
            return value

        def from_string(self, source: Any, *args: Any, **options: Any) -> Any:
            if len(source) > bounds.SOURCE:
                raise bounds.TooMuch(f"it has more than {bounds.SOURCE} characters")
            with bounds.metered():
                return super().from_string(source, *args, **options)

        def _parse(self, *args: Any) -> Any:
            return _counting(super()._parse(*args))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            bounds.check_operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805
            owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
            if isinstance(owner, str | bytes | int):
                name = getattr(__obj, "__name__", "")
                bounds.check_call(name, owner, *args, *options.values())
            else:
                bounds.step()
            if isinstance(__obj, LoopContext) and args:
                args = (bounds.each(args[0]), *args[1:])
            result = super().call(__context, __obj, *args, **options)
            return bounds.built(result) if isinstance(result, dict | list) else result

    return Bounded


def _counting(tree: Any) -> Any:
    """Return a template's tree with its loops, joined texts and lists going through ``bounds``."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def through(name: str, node: Any) -> Any:
        return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)

    class Counting(NodeTransformer):
        def visit_For(self, node: Any) -> Any:  # noqa: N802 - Jinja's names
            self.generic_visit(node)
            node.iter = through(_EACH, node.iter)
            return node

        def visit_Concat(self, node: Any) -> Any:  # noqa: N802
            self.generic_visit(node)
            return through(_JOINED, nodes.List(node.nodes).set_lineno(node.lineno))

        def visit_List(self, node: Any) -> Any:  # noqa: N802
            self.generic_visit(node)
            is_read = getattr(node, "ctx", "load") == "load"
            is_constant = all(isinstance(item, nodes.Const) for item in node.iter_child_nodes())
            return through(_BUILT, node) if is_read and not is_constant else node

        visit_Tuple = visit_Dict = visit_List  # noqa: N815

    return Counting().visit(tree)
