"""Sets of characters as ranges of code points, and how strings of JSON spell them."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]  # sorted, disjoint, both ends included

ALL: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))  # surrogates are not characters


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of ranges that may overlap, touch and stand in any order."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def without(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the characters of one set that are not in another."""
    result = []
    for low, high in ranges:
        for first, last in others:
            if last < low or first > high:
                continue
            if first > low:
                result.append((low, first - 1))
            low = last + 1
        if low <= high:
            result.append((low, high))
    return tuple(result)


def of(text: str) -> Ranges:
    """Return the set of a text's characters."""
    return joined((ord(char), ord(char)) for char in text)


DOT = without(ALL, of("\n\r\u2028\u2029"))  # ECMA-262, 22.2.2.7; Python's leaves out less
_DIGITS = ((0x30, 0x39),)
_WORD = joined([*_DIGITS, (0x41, 0x5A), (0x61, 0x7A), *of("_")])
_SPACES = joined([(0x9, 0xD), (0x2000, 0x200A), *of(" \xa0\u1680\u2028\u2029\u202f\u205f\u3000")])
_PERHAPS_SPACES = joined([*_SPACES, (0x1C, 0x1F), *of("\x85\ufeff")])


@functools.cache
def named(letter: str) -> Ranges:
    r"""Return what ``\d``, ``\w``, ``\s``, ``\D``, ``\W`` or ``\S`` stands for.

    ECMA-262's, Python's and Rust's regular expressions disagree beyond ASCII: these are the
    characters that all of them take.
    """
    if letter == "D":
        return without(ALL, joined((c, c) for c in range(0x20000) if chr(c).isdecimal()))
    return {
        "d": _DIGITS,
        "w": _WORD,
        "s": _SPACES,
        "W": without(((0, 0x7F),), _WORD),
        "S": without(ALL, _PERHAPS_SPACES),
    }[letter]


def negated(ranges: Ranges, letters: Iterable[str]) -> Ranges:
    """Return what a class ``[^...]`` of ranges and named sets stands for, in every dialect."""
    wide = (part for letter in letters for part in without(ALL, named(letter.swapcase())))
    return without(ALL, joined([*ranges, *wide]))


def alphabet(sets: set[Ranges]) -> tuple[list[Ranges], dict[Ranges, list[int]]]:
    """Return the classes of characters that the sets tell apart, and those of each set."""
    bounds = sorted({edge for part in sets for low, high in part for edge in (low, high + 1)})
    at = {bound: i for i, bound in enumerate(bounds)}
    members: dict[int, list[int]] = defaultdict(list)
    for number, ranges in enumerate(sets):
        for low, high in ranges:
            for i in range(at[low], at[high + 1]):
                members[i].append(number)
    parts: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, within in members.items():
        parts[tuple(within)].append((bounds[i], bounds[i + 1] - 1))
    classes: dict[int, list[int]] = defaultdict(list)
    for i, numbers in enumerate(parts):
        for number in numbers:
            classes[number].append(i)
    return [joined(part) for part in parts.values()], {
        ranges: classes[number] for number, ranges in enumerate(sets)
    }


# RFC 8259, 7: what a string cannot hold as it is, and the short escapes.
_CONTROLS = ((0, 0x1F),)
_SHORT = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}
_ESCAPED = joined([*_CONTROLS, *of('"\\')])


def spelled(ranges: Ranges, escaped: Ranges = ()) -> str:
    """Return a GBNF expression for one character of a set, as a string of JSON holds it.

    What JSON cannot hold raw, and what is in ``escaped`` (of ASCII), is written as an escape.
    """
    kept = without(ranges, joined([*_ESCAPED, *escaped]))
    parts = [f"[{''.join(map(_range, kept))}]"] if kept else []
    codes = [code for low, high in without(ranges, kept) for code in range(low, high + 1)]
    if short := [_SHORT[code] for code in codes if code in _SHORT]:
        parts.append(rf'"\\" [{"".join(map(_code, map(ord, short)))}]')
    for high in range(8):
        digits = [f"{code % 16:x}" for code in codes if code not in _SHORT and code // 16 == high]
        if digits:
            parts.append(rf'"\\u00{high}" [{"".join(digits)}]')
    return " | ".join(parts)


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\x{code:02X}" if code < 0x100 else f"\\U{code:08X}"
