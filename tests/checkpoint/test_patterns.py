"""Patterns of adapters: what peft has is matched as it does, what takes for ever is refused."""

from __future__ import annotations

import re

import pytest

from lfm2gguf.checkpoint.patterns import name_matches, pattern_problem
from lfm2gguf.errors import CheckpointError

TAKEN = (
    "q_proj", r"layers\.\d+\.self_attn\.q_proj", r".*\.(q|k|v)_proj", r"layers\.(0|1|[2-9])\..*",
    r"model\.layers\.1[0-5]\.(?:conv|self_attn)\.\w+", "layers.1.conv.in_proj", r"(w1|w2)?w3",
    r"[\]a(*+?{]+", r"\(\*\+", "a{2}", r".*layers\..*proj.*",
)  # fmt: skip
NAMES = ("model.layers.1.self_attn.q_proj", "layers.12.conv.in_proj", "q_proj", "w3", "aa")
REFUSED = (
    "(.*)*x", "(a+)+$", "(a|a)*b", "(a?){1999}", "a?" * 30 + "a" * 30, ".*" * 9 + "x", "(x*)*",
    "((a{1000}){1000}){1000}", r"(.)\1", "(?=x)y", "(?i)x", "(?P<a>x)", "(", "[", "a{2,1}",
    "a**", "x" * 501, "(" * 300 + "a" + ")" * 300, "(.*|b)+", "(?:a*)*", "((a*))*",
)  # fmt: skip


@pytest.mark.parametrize("pattern", TAKEN)
def test_what_people_write_is_matched_as_peft_does(pattern: str) -> None:
    assert not pattern_problem(pattern)
    for name in NAMES:
        assert name_matches(pattern, name) == bool(re.match(rf"(.*\.)?({pattern})$", name))


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_may_take_for_ever_is_refused(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize("pattern", [".*.*.*x", r".*\..*\..*x", "[a-z.]+[a.]+[.b]+x"])
@pytest.mark.parametrize("letter", ["a", ".", "a."])
def test_what_is_taken_ends_on_every_name(pattern: str, letter: str) -> None:
    assert not pattern_problem(pattern)
    assert not name_matches(pattern, (letter * 160)[:160])


def test_names_have_a_bound() -> None:
    with pytest.raises(CheckpointError, match="of 161 characters"):
        name_matches("a", "a" * 161)
