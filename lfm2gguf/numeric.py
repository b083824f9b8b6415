"""Arguments that are numbers: what is none is refused where it comes in."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from lfm2gguf.errors import OptionError

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number, NumPy's too, and not True or False."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, NumPy's too, and not True or False."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", is_whole),
    "float": ("a number", is_number),
}


def check_numbers(annotations: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check those of the values that are annotated as a number, or as one or None.

    Raises:
        OptionError: one is something else.

    """
    for name, value in values.items():
        kind = str(annotations.get(name))
        may_be_none = kind.endswith(" | None")
        words, fits = _KINDS.get(kind.removesuffix(" | None"), ("", None))
        if fits and not fits(value) and not (value is None and may_be_none):
            raise OptionError(f"{name} is {value!r}: it must be {words}")


def numbers_checked(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Let a function refuse what is no number, as :func:`check_numbers` does."""
    signature = inspect.signature(function)
    annotations = {name: p.annotation for name, p in signature.parameters.items()}

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the function's own words name it
            given = {}
        check_numbers(annotations, given)
        return function(*args, **kwargs)

    return called
