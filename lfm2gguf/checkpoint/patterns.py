"""Regular expressions that come with a file: those that Python's matcher decides in short time.

peft matches names with ``re``, which tries one way after the other: ``(.*)*x`` takes for ever on
a name of thirty letters. What peft writes, and people beside it, is far from that.
"""

from __future__ import annotations

import re
import warnings

from lfm2gguf.errors import CheckpointError

LONGEST = 500  # characters of a pattern
LONGEST_NAME = 160  # of a name that is matched
REPEATS, OPTIONS = 3, 8  # in one pattern: ``*``, ``+``, ``{}`` of any number; and ``?``
_TOKEN = re.compile(
    r"(?P<back>\\[1-9])|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<special>\(\?(?!:))|(?P<open>\((?:\?:)?)"
    r"|(?P<close>\))|(?P<choice>\|)|(?P<repeat>[*+]|\{\d*,\d*\}|\{\d+\})|(?P<option>\?)|.",
    re.DOTALL,
)


def pattern_problem(pattern: str) -> str:
    """Return why a pattern is not taken: it is not valid, or may take too long; else nothing."""
    if len(pattern) > LONGEST:
        return f"has more than {LONGEST} characters"
    try:
        with warnings.catch_warnings():  # of flags, which Python 3.10 takes in the midst
            warnings.simplefilter("ignore", DeprecationWarning)
            re.compile(f"({pattern})")
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a valid regular expression ({error})"
    return _slow(pattern)


def name_matches(pattern: str, name: str) -> bool:
    """Say whether a pattern fits a module's name, or what is behind a dot in it, to its end.

    Raises:
        CheckpointError: the name is too long to be matched.

    """
    if len(name) > LONGEST_NAME:
        raise CheckpointError(
            f"the tensor {name[:40]!r}... has a name of {len(name)} characters; names of up to "
            f"{LONGEST_NAME} are matched with patterns: save the adapter again"
        )
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _slow(pattern: str) -> str:
    repeats = options = 0
    groups, closed, before = [False], False, ""  # whether a group has more than one way
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup or ""
        if kind in ("back", "special"):
            return f"uses {token[0]!r}, which may take too long"
        if kind == "repeat" and before == "close" and closed:
            return "repeats a group that has several ways to match, which may take too long"
        repeats += kind == "repeat"
        options += kind == "option"
        if kind == "open":
            groups.append(False)
        elif kind == "close":
            closed = groups.pop()
            groups[-1] |= closed
        elif kind in ("choice", "repeat", "option"):
            groups[-1] = True
        before = kind
    if repeats > REPEATS or options > OPTIONS:
        return f"has {repeats + options} repetitions, which may take too long"
    return ""
