"""Budgets are read as they are written, kept, and spent where no single change does better."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.allocation import Budget, Option
from lfm2gguf.allocation.budget import parse_bytes
from lfm2gguf.allocation.choice import loss, nbytes, smallest, within_bytes, within_loss
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType

TYPES = (GGMLType.Q2_K, GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q8_0)
option = st.builds(Option, st.sampled_from(TYPES), st.integers(1, 40), st.floats(0, 10))
tensors = st.dictionaries(st.text(max_size=3), st.lists(option, min_size=1, max_size=4),
                          min_size=1, max_size=5)  # fmt: skip


@given(tensors, st.integers(0, 150))
def test_a_budget_of_bytes_is_kept_and_spent(known: dict[str, list[Option]], more: int) -> None:
    least = nbytes(smallest(known))
    chosen = within_bytes(known, least + more)
    assert chosen.keys() == known.keys()
    assert all(chosen[name] in options for name, options in known.items())
    assert nbytes(chosen) <= least + more
    assert loss(chosen) <= loss(smallest(known)) + 1e-9
    left = least + more - nbytes(chosen)
    for name, options in known.items():  # no single exchange that still fits is better
        cost = chosen[name].nbytes
        assert all(o.kld >= chosen[name].kld or o.nbytes > cost + left or o.nbytes <= cost
                   for o in options), (name, chosen)  # fmt: skip


@given(tensors, st.floats(0, 30))
def test_it_is_the_lagrangians_answer(known: dict[str, list[Option]], price: float) -> None:
    """What minimises loss + price x bytes is found at its own bytes, or something better."""
    best = {name: min(options, key=lambda o: (o.kld + price * o.nbytes, o.nbytes))
            for name, options in known.items()}  # fmt: skip
    assert loss(within_bytes(known, nbytes(best))) <= loss(best) + 1e-6


@given(tensors, st.floats(0, 30))
def test_a_limit_of_loss_is_kept(known: dict[str, list[Option]], most: float) -> None:
    best = sum(min(o.kld for o in options) for options in known.values())
    chosen = within_loss(known, most)
    assert loss(chosen) <= max(most, best) + 1e-9


def test_two_tensors_by_hand() -> None:
    q2, q4, q8 = GGMLType.Q2_K, GGMLType.Q4_K, GGMLType.Q8_0
    known = {
        "a": [Option(q2, 10, 8.0), Option(q4, 20, 2.0), Option(q8, 40, 0.0)],
        "b": [Option(q2, 10, 1.0), Option(q4, 20, 0.5), Option(q8, 40, 0.1)],
    }
    found = [[o.type for o in within_bytes(known, size).values()] for size in (20, 30, 40, 50, 80)]
    assert found == [[q2, q2], [q4, q2], [q4, q4], [q8, q2], [q8, q8]]
    every = [
        (nbytes(dict(zip(known, c, strict=True))), c) for c in itertools.product(*known.values())
    ]
    for size in (20, 30, 50, 80):
        best = min(sum(o.kld for o in c) for n, c in every if n <= size)
        assert loss(within_bytes(known, size)) == best


def test_sizes() -> None:
    sizes = {"600MB": 600e6, "1.5G": 1.5e9, "700 MiB": 700 * 2**20, "12345": 12345, "3kb": 3000}
    assert {text: parse_bytes(text) for text in sizes} == sizes
    for wrong in ("", "MB", "-1", "1.5.2G", "4iB", "nan", "1e9", "600XB", "9" * 400):
        with pytest.raises(OptionError, match=r"size \(--size\): .* is no size"):
            parse_bytes(wrong)
    assert Budget.of(None, None, None) is None
    assert Budget.of("600MB", None, None) == Budget(nbytes=600_000_000)
    assert Budget(bits_per_weight=4.5).bytes_for(16) == 9
    assert [str(b) for b in (Budget(1_500_000_000), Budget(None, 4.5), Budget(kld=0.02))] == [
        "1.5GB", "4.5bpw", "KLD0.02",
    ]  # fmt: skip
    with pytest.raises(OptionError, match="give one"):
        Budget(5, 4.0)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("field", "option"),
    [("nbytes", "size (--size)"), ("bits_per_weight", "bpw (--bpw)"), ("kld", "kld (--kld)")],
)
def test_what_is_no_positive_number_is_refused_by_its_option(
    field: str, option: str, value: float
) -> None:
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(OptionError, match=re.escape(f"{option} is {value}; give a positive")):
        Budget(**wrong)
