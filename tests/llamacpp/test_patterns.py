"""Patterns of JSON schemas: what the grammar allows is JSON, and what the pattern matches."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, json_schema_grammar
from tests.llamacpp.test_grammar import follows
from tests.making.gbnf import Grammar
from tests.making.models import tiny_gguf


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


PLAIN = 'ab1_ -"\\/<|>\x01\n\x7f\u20ac\u00e9\U0001f600]{}'
ATOMS = [
    *map(re.escape, PLAIN), r"\d", r"\w", r"\s", r"\S", r"\D", r"\W", ".", "[a-c]", "[^a-c]",
    r"[\w-]", r"[^\w\s]", r"[^\d\"]", r"[\]\\^-]", r"[<|]", r"\x41", r"\u00e9", r"\n", "^", "$",
]  # fmt: skip
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?"]


def grown(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(parts, max_size=3)
    return st.one_of(
        several.map("".join),
        several.map(lambda some: f"({'|'.join(some)})"),
        st.tuples(parts, st.sampled_from(QUANTIFIERS)).map(lambda p: f"(?:{p[0]}|){p[1]}"),
    )


PATTERNS = st.recursive(st.sampled_from(ATOMS), grown, max_leaves=8)


def texts(pattern: str, seed: int, **bounds: int) -> Iterator[str]:
    """Some answers, if the pattern is one that a grammar can be made of."""
    try:
        made = json_schema_grammar({"type": "string", "pattern": pattern, **bounds})
    except OptionError as error:
        if not re.search("no string fits|too many ways", str(error)):
            raise
        return
    grammar, draw = Grammar(made), random.Random(seed)
    for size in (3, 20, 80):
        yield grammar.draw(draw, size)


@settings(max_examples=100, deadline=None)
@given(pattern=PATTERNS, seed=st.integers(0, 2**32), start=st.booleans(), end=st.booleans())
def test_what_a_pattern_allows(pattern: str, seed: int, start: bool, end: bool) -> None:
    pattern = "^" * start + pattern + "$" * end
    for text in texts(pattern, seed):
        assert re.search(pattern, json.loads(text)), (pattern, text)
        assert "<|" not in text


@settings(max_examples=40, deadline=None)
@given(
    pattern=PATTERNS, seed=st.integers(0, 2**32), least=st.integers(0, 9), more=st.integers(0, 9)
)
def test_lengths_beside_a_pattern(pattern: str, seed: int, least: int, more: int) -> None:
    for text in texts(pattern, seed, minLength=least, maxLength=least + more):
        assert least <= len(json.loads(text)) <= least + more
        assert re.search(pattern, json.loads(text))


USUAL = [
    (r"^\d{4}-\d{2}-\d{2}$", ["2024-01-31"], ["2024-1-31", "x2024-01-31"]),
    (r"^[\w-]+$", ["a-b"], ["", "a b"]),
    (r"^\S+$", ["a", "\u00e9"], [" ", ""]),
    (r"^a\.b$", ["a.b"], ["axb"]),
    (r"^\$[0-9]+\.[0-9]{2}$", ["$1.00"], ["$1.0"]),
    (r"^\/api\/v1$", ["/api/v1"], ["/api/v2"]),
    (r"^\+?[1-9]\d{1,14}$", ["+4930", "12"], ["+0", "1"]),
    (r"^[a-z]+", ["abc", "abc!"], ["Abc", ""]),
    (r"\S", ["x", "  x "], ["", "  "]),
    (r"[a-z]$", ["1a"], ["a1"]),
    (r"^a|b$", ["ax", "xb"], ["xa", "bx"]),
    (r"^(?:a|b)$", ["a", "b"], ["ab", "c"]),
    (r"^(?<year>\d)$", ["1"], ["a"]),
    (r"^]$", ["]"], ["[", "]]"]),
    (r"^\[.*]$", ["[]", "[x]", '["]', "[\\]"], ["[", "x]"]),
    (r"^[\x00-\x1f]$", ["\x01", "\n"], ["a"]),
    (r"^<\|$", [], ["<"]),
    (r"^\ud83d\ude00$", ["\U0001f600"], ["x"]),
    (r"", ["", "x"], []),
    (r"^(a?){300}$", ["", "aaa"], ["b"]),
    (r"^(a?){1999}$", ["aaa"], ["b"]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "fitting", "others"), USUAL)
def test_usual_patterns(model: Model, pattern: str, fitting: list[str], others: list[str]) -> None:
    grammar = json_schema_grammar({"type": "string", "pattern": pattern})
    for value in fitting:
        assert follows(model, grammar, json.dumps(value, ensure_ascii=False)), value
    for value in others:
        assert not follows(model, grammar, json.dumps(value, ensure_ascii=False)), value


REFUSED = [
    ("(?=a)", "a lookahead"), ("(?!a)", "a lookahead"), ("(?<=a)b", "a lookbehind"),
    ("(?<!a)b", "a lookbehind"), (r"(a)\1", "a backreference"), (r"(?<n>a)\k<n>", "backref"),
    (r"\bword", "a word boundary"), (r"\B", "a word boundary"), (r"\p{L}", "a Unicode property"),
    ("(?i)a", "a group of an unknown kind"), ("a**", "repeated"), ("a++", "repeated"),
    ("^*", "an anchor is repeated"), ("*a", "nothing to repeat"), ("{2}", "nothing to repeat"),
    ("(a", "not closed"), ("a)", "not opened"), ("[a", "ends too early"), ("a\\", "too early"),
    ("^[]]$", "dialects"), ("[^]]", "dialects"), ("[z-a]", "ends before it starts"),
    (r"\q", "an unknown escape"), ("a{3,2}", "3 to 2 repetitions"), (r"\ud800", "surrogate"),
    ("a{1,3000000}", "can be had"), ("a{1,99999999999999999999999}", "can be had"),
    ("b^a", "no string fits"), ("(" * 60 + ")" * 60, "deeper"), ("a" * 2001, "characters"),
    ("((a{100}){100}){100}", "too many ways"), ("(((){2000}){2000}){2000}", "too many ways"),
    ("a.{20}", "too many ways"), ("^((a|b|ab)?(a|b|ab)?(a|b|ab)?){60}$", "too many ways"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "said"), REFUSED)
def test_what_is_refused_by_name(pattern: str, said: str) -> None:
    with pytest.raises(OptionError, match=f"^json_schema: pattern .*{said}"):
        json_schema_grammar({"type": "string", "pattern": pattern})


def test_the_patterns_of_a_schema_share_a_budget() -> None:
    one = {f"p{i}": {"type": "string", "pattern": f"^a{{0,{1900 + i}}}$"} for i in range(40)}
    with pytest.raises(OptionError, match="too many ways"):
        json_schema_grammar({"type": "object", "properties": one})
