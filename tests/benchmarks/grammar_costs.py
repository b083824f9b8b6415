"""Search for grammars that are taken and cost llama.cpp's sampler the most.

    python tests/benchmarks/grammar_costs.py MODEL.gguf [--seconds 300] [--seed N]

Families of grammars are made as large as :func:`lfm2gguf.llamacpp.check_grammar` takes them, then
random ones are changed towards more time. Measured is one filtering of the whole vocabulary, at the
start and behind the tokens of random texts, in seconds of the processor; ``at_the_bound`` is what
that would be if the grammar used up the comparisons or expansions that are allowed. The model must
have LFM2's real vocabulary: the check's bounds are counted in it. Prints JSON lines; exit code 1 if
a filtering takes more than ``--most`` seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, check_grammar
from lfm2gguf.llamacpp.ambiguity import MOST_COMPARISONS, MOST_EXPANSIONS, Exploration
from lfm2gguf.llamacpp.candidates import CandidateArray
from lfm2gguf.llamacpp.gbnf import parse
from lfm2gguf.llamacpp.library import library

LARGEST = 1 << 14
LEAST_SHARE = 0.05  # of the bound: what costs less tells little of it
STARTS = (
    ["[a-z]*", "[^x]* x0"],
    ["x1 | [a-z]* x1", "[^x]{0,99}"],
    ["(x1 | x2)*", "[a-z]+", "[0-9]"],
)
CLASSES = ("[a-z]", "[^x]", ".", "[a-zA-Z ]", "[ a]", "[^\\n]", "[ -~]", "[0-9]", '" "', '"e"')


def _choice(text: Callable[[int], str]) -> Callable[[int], str]:
    return lambda n: "root ::= " + " | ".join(f'"{text(i)}"' for i in range(n))


def _letters(i: int) -> str:
    return "".join(string.ascii_lowercase[i // 26**k % 26] for k in range(3))


def _side_by_side(part: str, end: str = '"{i}"') -> Callable[[int], str]:
    """Return n rules that all go on along the same text."""

    def made(n: int) -> str:
        rules = [f"x{i} ::= {part} {end.replace('{i}', str(i))}" for i in range(n)]
        return "\n".join(["root ::= " + " | ".join(f"x{i}" for i in range(n)), *rules])

    return made


def _repeated(part: str) -> Callable[[int], str]:
    return lambda n: f'root ::= ({part}){{0,{n}}} "."'


def _deep(part: str, again: str) -> Callable[[int], str]:
    """Return a chain of n rules that is gone through at each character."""

    def made(n: int) -> str:
        chain = [f"x{i} ::= x{i + 1} | {i % 10}".replace(f"| {i % 10}", f'| "{i}"')
                 for i in range(n)]  # fmt: skip
        return "\n".join([f"root ::= x0 {again}", *chain, f"x{n} ::= {part}"])

    return made


FAMILIES = {
    "labels": _choice(lambda i: f"label {i}"),
    "spaces and labels": _choice(lambda i: f" {_letters(i)}"),
    "spaces, alike": _choice(lambda i: f" s{_letters(i)}"),
    "long, alike": _choice(lambda i: f" the answer is {_letters(i)}"),
    "one text many times": _choice(lambda i: f" {'a' * i}"),
    **{f"side by side {part}": _side_by_side(part) for part in
       ("[a-z]*", "[^x]*", ".*", "[a-zA-Z ]*", '[^"]{0,9}', '" "? [a-z]*', "[a-z]+ [ ]* [a-z]*")},
    **{f"chain to {part}": _deep(part, again) for part, again in
       (("[a-z]", "root"), ("[^x]", "root?"), (".", "root"), ("[ a-z]", 'root | ""'))},
    **{f"repeated {part}": _repeated(part) for part in
       ("[^x]", '[a-z]+ " "', '[a-z]? "e"', ". [a-z]?", '"a" | [b-z ]', "[^x] [^x]?")},
    "empty parts": lambda n: "root ::= ([^x] " + '"1"? ' * n + ")*",
    "stars behind": lambda n: "root ::= ([^x] " + " ".join(f'"{i}"*' for i in range(n)) + ")*",
}  # fmt: skip


def taken(grammar: str) -> bool:
    try:
        check_grammar(grammar)
    except OptionError:
        return False
    return True


def used(grammar: str) -> float:
    """Return how much of what is allowed a grammar may use, as a share."""
    exploration = Exploration(parse(grammar))
    exploration.check()
    bound = exploration.bound
    return max(bound.comparisons / MOST_COMPARISONS, bound.expanded / MOST_EXPANSIONS)


def largest(family: Callable[[int], str]) -> int:
    """Return the largest size that is taken, 0 if none is; sizes between are taken to be so too."""
    low, high = 0, 1
    while high <= LARGEST and taken(family(high)):
        low, high = high, high * 2
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if taken(family(middle)) else (low, middle)
    return low


class Meter:
    """A vocabulary, and what a grammar costs it."""

    def __init__(self, model: Model, draw: random.Random) -> None:
        self._llama, self._model, self._draw = library(), model, draw
        self._array = CandidateArray(self._llama, *model.candidates)
        self._logits = np.zeros(model.n_vocab, np.float32)

    def worst(self, grammar: str, texts: int = 3, tokens: int = 8) -> tuple[float, str]:
        """Return the seconds of the dearest filtering, and the text before it."""
        worst = (0.0, "")
        for _ in range(texts):
            sampler = self._llama.llama_sampler_init_grammar(
                self._model.vocab, grammar.encode(), b"root"
            )
            assert sampler, grammar
            text = b""
            for _ in range(tokens):
                array = self._array.fill(self._logits)
                began = time.thread_time()
                self._llama.llama_sampler_apply(sampler, ctypes.byref(array))
                took = time.thread_time() - began
                worst = max(worst, (took, text.decode("utf-8", "replace")))
                allowed = np.flatnonzero(np.isfinite(self._array.data["logit"]))
                going_on = [int(t) for t in allowed if not self._model.ends_generation(int(t))]
                if not going_on:
                    break
                token = self._draw.choice(going_on)
                text += self._model.piece(token, special=True)
                self._llama.llama_sampler_accept(sampler, token)
            self._llama.llama_sampler_free(sampler)
        return worst


def changed(grammar: list[str], draw: random.Random) -> list[str]:
    """Return rules of which a piece is another."""
    rules = [rule.split(" ") for rule in grammar]
    names = [f"x{i}" for i in range(len(rules))]
    for _ in range(draw.choice((1, 1, 2, 5))):
        rule = draw.choice(rules)
        at = draw.randrange(len(rule) + 1)
        item = draw.choice([*CLASSES, *names]) + draw.choice(["", "", "*", "?", "{0,9}", "{0,99}"])
        rule[at : at + draw.randrange(2)] = draw.choice(
            [[item], [item, "|", item], ["|", *rule[:9]], []]
        )
    if draw.random() < 0.2:
        rules.append([draw.choice(CLASSES), names[0]])
    return [" ".join(filter(None, rule)) or '""' for rule in rules]


def written(rules: list[str]) -> str:
    return "\n".join(f"{'root' if i == 0 else f'x{i}'} ::= {rule}" for i, rule in
                     enumerate(rule.replace("x0", "root") for rule in rules))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=300, help="for the random ones")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--most", type=float, default=2.0)
    given = parser.parse_args()
    draw, worst = random.Random(given.seed), 0.0
    with Model(given.model) as model:
        meter = Meter(model, draw)
        for name, family in FAMILIES.items():
            if size := largest(family):
                seconds, text = meter.worst(family(size))
                worst = max(worst, seconds)
                found = {"family": name, "size": size, "seconds": round(seconds, 3), "behind": text}
                print(json.dumps(found), flush=True)
        tried, end = 0, time.monotonic() + given.seconds
        at_the_bound, best = 0.0, STARTS[0]
        while time.monotonic() < end:
            rules = changed(best if tried % 8 else draw.choice(STARTS), draw)
            grammar = written(rules)
            if len(grammar) > 20_000 or not taken(grammar):
                continue
            tried += 1
            if (share := used(grammar)) < LEAST_SHARE:
                continue
            seconds, text = meter.worst(grammar, texts=2, tokens=4)
            worst = max(worst, seconds)
            if seconds / share > at_the_bound:
                at_the_bound, best = seconds / share, rules
                print(json.dumps({
                    "random": tried, "seconds": round(seconds, 3), "share": round(share, 3),
                    "at_the_bound": round(at_the_bound, 3), "behind": text, "grammar": grammar,
                }), flush=True)  # fmt: skip
    print(json.dumps({"worst": round(worst, 3), "random": tried, "seed": given.seed,
                      "at_the_bound": round(at_the_bound, 3)}))  # fmt: skip
    sys.exit(worst > given.most)


if __name__ == "__main__":
    main()
