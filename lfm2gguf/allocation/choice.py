"""Spending bytes where they buy most: one option for each tensor.

Each tensor goes up its convex hull of (bytes, loss), the steepest step of all tensors first, which
is the Lagrangian's answer; what then is left of the budget buys the best single steps that fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lfm2gguf.ggml import GGMLType


@dataclass(frozen=True)
class Option:
    """A type that a tensor could have: its bytes in a file, and what that costs (nats)."""

    type: GGMLType
    nbytes: int
    kld: float


Choice = dict[str, Option]


def smallest(tensors: Mapping[str, Sequence[Option]]) -> Choice:
    """Return the smallest option of each tensor."""
    return {name: min(options, key=_size) for name, options in tensors.items()}


def within_bytes(tensors: Mapping[str, Sequence[Option]], budget: int) -> Choice:
    """Return the choice of least loss in at most ``budget`` bytes, which :func:`smallest` fits."""
    chosen = smallest(tensors)
    left = budget - nbytes(chosen)
    for name, step in _steps(tensors):
        cost = step.nbytes - chosen[name].nbytes
        if cost > left:
            break  # a smaller step of a later tensor is for what is left over
        chosen[name], left = step, left - cost
    while better := _affordable(tensors, chosen, left):
        name, step = better
        left -= step.nbytes - chosen[name].nbytes
        chosen[name] = step
    return chosen


def within_loss(tensors: Mapping[str, Sequence[Option]], most: float) -> Choice:
    """Return the smallest choice on the hull whose losses sum to at most ``most``, or the best."""
    chosen = smallest(tensors)
    for name, step in _steps(tensors):
        if loss(chosen) <= most:
            break
        chosen[name] = step
    return chosen


def nbytes(choice: Choice) -> int:
    """Return the bytes of all tensors."""
    return sum(option.nbytes for option in choice.values())


def loss(choice: Choice) -> float:
    """Return the losses of all tensors, which add up as long as each is small."""
    return sum(option.kld for option in choice.values())


def _size(option: Option) -> tuple[int, float]:
    return option.nbytes, option.kld


def _rate(low: Option, high: Option) -> float:
    """What a byte buys on the way from one option to a larger one."""
    return (low.kld - high.kld) / (high.nbytes - low.nbytes)


def _hull(options: Sequence[Option]) -> list[Option]:
    """Return the options that some price of a byte would choose, the smallest first."""
    hull = list[Option]()
    for option in sorted(options, key=_size):
        if hull and (option.kld >= hull[-1].kld or option.nbytes == hull[-1].nbytes):
            continue
        while len(hull) > 1 and _rate(hull[-2], hull[-1]) <= _rate(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _steps(tensors: Mapping[str, Sequence[Option]]) -> list[tuple[str, Option]]:
    """Return every step up a hull, those that buy most for a byte first."""
    steps = []
    for name, options in tensors.items():
        hull = _hull(options)
        steps += [(_rate(a, b), name, b) for a, b in itertools.pairwise(hull)]
    steps.sort(key=lambda step: -step[0])  # stable: a hull's own steps stay in order
    return [(name, option) for _, name, option in steps]


def _affordable(
    tensors: Mapping[str, Sequence[Option]], chosen: Choice, left: int
) -> tuple[str, Option] | None:
    """Return the single step that buys most for a byte among those that fit, None without one."""
    steps = [
        (_rate(chosen[name], option), name, option)
        for name, options in tensors.items()
        for option in options
        if 0 < option.nbytes - chosen[name].nbytes <= left and option.kld < chosen[name].kld
    ]
    if not steps:
        return None
    _, name, option = max(steps, key=lambda step: step[0])
    return name, option
