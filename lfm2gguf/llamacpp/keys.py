"""Objects of JSON schemas as GBNF: their properties, and keys that are none of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from lfm2gguf.llamacpp import characters
from lfm2gguf.llamacpp.characters import ALL, without

COMMA = '"," space'
_LESS, _BAR = characters.of("<"), characters.of("|")


def object_rules(
    pairs: Mapping[str, str], required: Sequence[str], extra: str | None, name: str
) -> tuple[str, dict[str, str]]:
    """Return the rule of an object, and the rules that it names, which begin with ``name``.

    ``pairs`` holds the rule of each property's key and value, ``extra`` that of any other pair.
    """
    optional = [rule for key, rule in pairs.items() if key not in required]
    many = [f"{name}-{i}" for i in range(len(optional) + 1)]  # what may follow the property before
    rules = {many[i]: f"({COMMA} {rule})? {many[i + 1]}" for i, rule in enumerate(optional)}
    rules[many[-1]] = f"({COMMA} {extra})*" if extra else '""'
    starts = [f"{rule} {many[i + 1]}" for i, rule in enumerate(optional)]
    starts += [f"{extra} {many[-1]}"] if extra else []
    if required:
        body = f" {COMMA} ".join(pairs[key] for key in required) + f" {many[0]}"
    else:
        body = f"({' | '.join(starts)})?" if starts else ""
    return f'"{{" space {body} "}}" space', rules


def other_keys(known: Collection[str], name: str) -> dict[str, str]:
    """Return rules, ``name`` the first, of strings of JSON other than the known ones.

    The rules ``char`` and ``after-less`` say what strings hold.
    """
    prefixes = sorted({key[:i] for key in known for i in range(len(key) + 1)} | {""})
    names = {prefix: f"{name}-{i}" for i, prefix in enumerate(prefixes)}
    rules = {
        name: rf'"\"" {names[""]}',
        f"{name}-any": r'(char | "<"+ after-less)* "<"* "\"" space',
        f"{name}-less": rf'"<"* (after-less {name}-any | "\"" space)',
    }
    for prefix, rule in names.items():
        rules[rule] = " | ".join(_ways_on(prefix, known, names, name))
    return rules


def _ways_on(
    prefix: str, known: Collection[str], names: Mapping[str, str], name: str
) -> Iterator[str]:
    if prefix not in known:
        yield r'"\"" space'
    escaped = _BAR if prefix.endswith("<") else ()
    nexts = {key[len(prefix)] for key in known if key.startswith(prefix) and key != prefix}
    for char in sorted(nexts):
        yield f"({characters.spelled(characters.of(char), escaped)}) {names[prefix + char]}"
    others = without(ALL, characters.of("".join(nexts)))
    yield f"({characters.spelled(without(others, _LESS), escaped)}) {name}-any"
    if "<" not in nexts:
        yield f'"<" {name}-less'
