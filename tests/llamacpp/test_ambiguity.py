"""Which grammars of clients reach the sampler, held against llama.cpp and a plain simulation."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lfm2gguf import convert
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, Sampler, check_grammar, choice_rules, json_schema_grammar
from lfm2gguf.llamacpp.ambiguity import ALIKE, LONGER, Exploration
from lfm2gguf.llamacpp.gbnf import parse
from lfm2gguf.options import Options
from tests.making.checkpoints import make
from tests.making.checkpoints import real as real_case
from tests.making.gbnf import Grammar, Symbol
from tests.making.models import tiny_gguf
from tests.making.realdata import needs, path_of

# llama.cpp's grammars/json.gbnf, arithmetic.gbnf and list.gbnf at 0c1e57098, spaces aside.
JSON = r"""root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \t\n]*
"""
LIST = r"""root ::= item+
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"""
TAKEN = {
    "json": JSON, "arithmetic": ARITHMETIC, "list": LIST,
    "spaces in two places": 'root ::= "{" ws ws "}"\nws ::= [ \\n]*',
    "anything": "root ::= .*", "words": 'root ::= ([a-z]+ " ")* [a-z]+',
    "parentheses": 'root ::= "(" root ")" | ""', "long": "root ::= [a-z]{1,2000}",
    "alike for ever": 'root ::= x | y\nx ::= "a" x | "b"\ny ::= "a" y | "c"',
    "labels": "root ::= " + " | ".join(f'"label {i}"' for i in range(200)),
    "many labels": "root ::= answer\nanswer ::= (" + " | ".join(
        f'"label{i}"' for i in range(470)) + ")",
    "many spaces": "root ::= " + " | ".join(f'" s{i}"' for i in range(470)),
    "choice": "\n".join(f"{name} ::= {rule}" for name, rule in
                        choice_rules([f"n{i}" for i in range(500)], "root").items()),
    "schema": json_schema_grammar({
        "type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "array", "items": {"type": "integer"}}, "b": {"enum": ["x", "yz", 3]},
            "c": {"type": "string", "maxLength": 30}, "d": {}}}),
}  # fmt: skip
ATTACKS = {
    "twice": 'root ::= ("a" | "a")*', "dashes": 'root ::= ("-" | "-")* "x"',
    "empty parts": 'root ::= ("a"? | "b"?)*', "classes": "root ::= ([a-z] | [a-z0-9])*",
    "many optional": 'root ::= (("a"?){30}){30}', "words": 'root ::= ([a-z]+ " "?)*',
    "equal nonterminals": 'root ::= x | y\nx ::= "a" root\ny ::= "a" root',
    "binary": 'root ::= "a" root root | "a"',
    "brackets": 'root ::= "(" root ")" | "(" root "]"| "a"',
    "cubic": 'root ::= "a"* "a"* "a"* "a"* "b"', "left": 'root ::= root "a" | "a"',
    "hidden left": 'root ::= b root "x" | "y"\nb ::= c\nc ::= ""', "empty loop": 'root ::= ("")*',
    "in the middle": 'root ::= "{" s "}"\ns ::= [a-z]+ ("," s)? | [a-z]+ ("," s s)?',
    "tails": 'root ::= "(" root t | "a"\nt ::= "x" | ""',
    "search": "\n".join(["root ::= x0", *(f"x{i} ::= x{i + 1} | x{i + 1}" for i in range(40)),
                         'x40 ::= "a"']),
    "chain": "\n".join(["root ::= x0", *(f"x{i} ::= x{i + 1}" for i in range(3000)),
                        'x3000 ::= "a"']),
    "stacks": "\n".join(["root ::= x0", 'x40 ::= "a"',
                         *(f'x{i} ::= x{i + 1} "a" | x{i + 1} "b"' for i in range(40))]),
    "repetitions": 'root ::= "abcdefghijklmnopqrstuvwxyz"{1000}',
    "nested": 'root ::= (("a"?){50}){50}', "large": f"root ::= [{'a' * 200_000}]",
    "parentheses": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "letters": "root ::= (" + " | ".join(f'"{chr(97 + i)}"' for i in range(26)) + ")*",
    "many labels": "root ::= " + " | ".join(f'"label {i}"' for i in range(480)),
    "backward": 'root ::= "a"{2,1}', "tokens": "root ::= <[1]>", "NUL": 'root ::= "a"\0',
    "undefined": "root ::= nothing", "digits": 'root ::= "a"{99999999999999999999}',
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


@pytest.mark.parametrize("grammar", TAKEN.values(), ids=TAKEN)
def test_grammars_that_people_write_are_taken(grammar: str, model: Model) -> None:
    check_grammar(grammar)
    sampler = Sampler(model, Options(temperature=0.0, grammar=grammar))
    began = time.thread_time()
    sampler.sample(np.zeros(model.n_vocab, np.float32))
    sampler.close()
    assert time.thread_time() - began < 2


@pytest.mark.slow
@needs("LFM2-1.2B")
def test_a_token_is_cheap_in_the_real_vocabulary(tmp_path: Path) -> None:
    """One filtering of 65,536 tokens at each of a random text's states."""
    source = make(real_case(path_of("LFM2-1.2B")), tmp_path / "real")
    file = convert(source, tmp_path / "real.gguf", "Q8_0", jobs=1).files[0].path
    draw = np.random.default_rng(1)
    with Model(file) as loaded:
        pieces = [loaded.piece(token, special=True) for token in range(loaded.n_vocab)]
        texts = [piece.decode("utf-8", "ignore") for piece in pieces]
        for n, (longer, alike) in enumerate(zip(LONGER, ALIKE, strict=True)):
            tokens = [text for text in texts if len(text) > n]
            assert len(tokens) == longer
            assert max(Counter(text[:n] for text in tokens).values()) == alike
        for name, grammar in TAKEN.items():
            sampler = Sampler(loaded, Options(temperature=0.0, grammar=grammar))
            for _ in range(6):
                began = time.thread_time()
                token = sampler.sample(draw.standard_normal(loaded.n_vocab, np.float32))
                # see tests/benchmarks/grammar_costs.py, which looks for the worst
                assert time.thread_time() - began < 2, name
                if loaded.ends_generation(token):
                    break
            sampler.close()


@pytest.mark.parametrize("grammar", ATTACKS.values(), ids=ATTACKS)
def test_attacks_are_refused_soon(grammar: str) -> None:
    began = time.thread_time()
    with pytest.raises(OptionError, match=r"^grammar: "):
        check_grammar(grammar)
    assert time.thread_time() - began < 5  # 0.3 s where nothing traces or slows it


def test_choices_of_texts_are_told_from_all_else() -> None:
    """Many alternatives of plain characters are cheap; of classes, or repeated, they are not."""
    texts = [f'"label{i}"' for i in range(400)]
    for root in ("(" + " | ".join(texts) + ")", " | ".join(texts), " | ".join([*texts, '""'])):
        check_grammar(f"root ::= {root}")
    classes = " | ".join(text + " [a-z]" for text in texts)
    for root in (classes, "(" + " | ".join(texts) + ")*", " | ".join([*texts, "root"])):
        with pytest.raises(OptionError, match=r"^grammar: "):
            check_grammar(f"root ::= {root}")


def test_the_error_shows_rule_and_text() -> None:
    with pytest.raises(OptionError, match=r"the rule name: a text such as 'xaaaa.*--any-grammar"):
        check_grammar('root ::= "x" name\nname ::= ("a" | "a")* "b"')
    with pytest.raises(OptionError, match=r"line 2, at '\)': the rule's end"):
        check_grammar('root ::= x\nx ::= "a")')


# --- random grammars ---------------------------------------------------------------------------

ITEM = st.sampled_from(
    ['"a"', '"b"', '"ab"', "[ab]", "x", "y", "root", '("a" | "b" "a")', '("a" x)']
)
REPEATED = st.tuples(ITEM, st.sampled_from(["", "", "", "", "*", "+", "?", "{2}"])).map("".join)
SEQUENCE = st.lists(REPEATED, max_size=3).map(lambda parts: " ".join(parts) or '""')
RULE = st.lists(SEQUENCE, min_size=1, max_size=3).map(" | ".join)
GRAMMAR = st.tuples(RULE, RULE, RULE).map(lambda r: f"root ::= {r[0]}\nx ::= {r[1]}\ny ::= {r[2]}")


@given(grammar=GRAMMAR, seed=st.integers(0, 2**32))
@settings(max_examples=80)
def test_no_text_has_more_ways_than_the_bound(grammar: str, seed: int) -> None:
    """The simulation keeps whole stacks, and reads the grammar with a parser of its own."""
    exploration = Exploration(parse(grammar), steps=20_000)
    try:
        exploration.check()
    except OptionError:
        assume(False)
    draw, plain = random.Random(seed), Simulation(grammar)
    for _ in range(5):
        ways = Counter(plain.start)
        depth = 0
        for _ in range(12):
            assert sum(ways.values()) <= exploration.bound.ways[depth]
            ways = plain.after(ways, ord(draw.choice("ab")))
            depth += 1
            if draw.random() < 0.3:  # a token ends
                ways, depth = Counter(set(ways)), 0


@given(grammar=GRAMMAR)
@settings(max_examples=60)
def test_llama_cpp_takes_what_is_accepted(grammar: str, model: Model) -> None:
    try:
        Exploration(parse(grammar), steps=20_000).check()
    except OptionError:
        assume(False)
    Sampler(model, Options(temperature=0.0, grammar=grammar)).close()


Place = tuple[str, int, int]  # rule, alternative, element


class Simulation:
    """llama.cpp's stacks, kept whole: how many ways lead to each."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, list[list[Symbol]]] = Grammar(text)._rules
        self.start: set[tuple[Place, ...]] = set()
        for i, alternative in enumerate(self._rules["root"]):
            self.start |= self._advanced((("root", i, 0),) if alternative else ())

    def after(self, ways: Counter[tuple[Place, ...]], code: int) -> Counter[tuple[Place, ...]]:
        found: Counter[tuple[Place, ...]] = Counter()
        for stack, count in ways.items():
            symbol = self._symbol(stack[-1]) if stack else ""
            if isinstance(symbol, tuple) and self._fits(symbol, code):
                for reached in self._advanced((*stack[:-1], *self._next(stack[-1]))):
                    found[reached] += count
        return found

    def _fits(self, symbol: Symbol, code: int) -> bool:
        negated, ranges = symbol
        return any(low <= code <= high for low, high in ranges) is not negated  # type: ignore[misc]

    def _symbol(self, place: Place) -> Symbol:
        return self._rules[place[0]][place[1]][place[2]]

    def _next(self, place: Place) -> tuple[Place, ...]:
        rule, alternative, i = place
        more = i + 1 < len(self._rules[rule][alternative])
        return ((rule, alternative, i + 1),) if more else ()

    def _advanced(self, stack: tuple[Place, ...]) -> set[tuple[Place, ...]]:
        found, seen, todo = set(), set(), [stack]
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            symbol = self._symbol(stack[-1]) if stack else None
            if not isinstance(symbol, str):
                found.add(stack)
                continue
            rest = (*stack[:-1], *self._next(stack[-1]))
            for i, alternative in enumerate(self._rules[symbol]):
                todo.append((*rest, (symbol, i, 0)) if alternative else rest)
        return found


def test_a_class_that_no_character_is_in() -> None:
    """``[a-)]`` ends before it begins: nothing to choose, and nothing that fails."""
    check_grammar('root ::= x\nx ::= [a-)]{1,9} | "\u00e9"')
