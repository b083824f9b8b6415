"""Templates that are meant to stop whoever renders them."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from lfm2gguf.chat import bounds
from lfm2gguf.chat.environment import environment
from lfm2gguf.chat.template import Template
from lfm2gguf.errors import Lfm2ggufError

NESTED = "{% for i in range(40) %}{% set ns.x = ACTION %}{% endfor %}"
DOUBLED = "{% set ns = namespace(x=['a']) %}" + NESTED
BOMBS = {
    "times": "{{ 'a' * 10**9 }}",
    "a list": "{{ [0] * 10**9 }}",
    "left": "{{ 10**9 * 'a' }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "translate": "{{ ('a' * 10**6).translate({97: 'b' * 10**6}) }}",
    "expandtabs": "{{ ('\\t' * 10**6).expandtabs(10**6) }}",
    "replace": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "replace filter": "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}",
    "width in %": "{{ '%9999999999d' % 3 }}",
    "star in %": "{{ '%*d' % (10**9, 3) }}",
    "precision": "{{ '%.999999999f' % 3 }}",
    "format": "{{ '{:9999999999}'.format(1) }}",
    "width among the values": "{{ '{:{}}'.format(1, 10**9) }}",
    "format filter": "{{ '%9999999999d'|format(3) }}",
    "doubling": "{% set ns = namespace(x='aaaaaaaaaa') %}"
    + NESTED.replace("ACTION", "ns.x ~ ns.x"),
    "doubling by +": "{% set ns = namespace(x='aa') %}" + NESTED.replace("ACTION", "ns.x + ns.x"),
    "doubling by join": "{% set ns = namespace(x='aa') %}"
    + NESTED.replace("ACTION", "[ns.x, ns.x]|join"),
    "lists of lists": DOUBLED.replace("ACTION", "[ns.x, ns.x]"),
    "dicts of dicts": DOUBLED.replace("ACTION", "{'a': ns.x, 'b': ns.x}"),
    "dict()": DOUBLED.replace("ACTION", "dict(a=ns.x, b=ns.x)"),
    "batches": DOUBLED.replace("ACTION", "(ns.x + ns.x)|batch(99)|list"),
    "a block": "{% set ns = namespace(x='aa') %}{% for i in range(40) %}{% set y %}{{ ns.x }}"
    "{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "text in loops": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursive loops": "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "powers": "{{ 9**(9**9) }}",
    "a power": "{{ (2**200000000) % 7 }}",
    "squares": "{% set ns = namespace(x=9) %}" + NESTED.replace("ACTION", "ns.x * ns.x"),
    "round": "{{ 1.5|round(10**9, 'floor') }}",
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "join": "{{ range(99999)|list|join('x' * 99999) }}",
    "center": "{{ 'x'|center(10**10) }}",
    "indent": "{{ ('a\\n' * 10**5)|indent(10**5) }}",
    "tojson": "{{ range(9999)|list|tojson(indent=10**8) }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "wordwrap": "{{ ('a' * 10**6)|wordwrap(1) }}",
    "lipsum": "{{ lipsum(n=9999999) }}",
    "urlize": "{{ ('((' * 30000)|urlize }}",
    "brackets": "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}",
    "a source of megabytes": "{# #}" * (bounds.SOURCE // 4),
}


@pytest.fixture(autouse=True)
def little_memory() -> object:
    """Four GiB more than is mapped: a bound that does not hold is an error, not a dead machine."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused(what: str) -> None:
    with pytest.raises(Lfm2ggufError) as caught:
        Template(BOMBS[what]).prompt("hi")
    assert "MemoryError" not in repr(caught.value.__cause__)


def test_what_templates_do_is_what_it_was() -> None:
    """The operators and filters that are counted give what Jinja itself gives."""
    source = (
        "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% set ns.l = ns.l + [m.content] %}{{ loop.index ~ ':' ~ m['content'] }}"
        "{% if loop.last %}!{% endif %}{% endfor %}{{ ns.l|join(', ') }}{{ ns.l }}"
        "{{ '%5.1f|%-4s|' % (ns.n, 'ab') }}{{ '{:>6}'.format('x') }}{{ 'Year 2147483647 %s' % 1 }}"
        "{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 10 }}{{ 'ab' * 3 }}{{ (1, 'a') }}{{ {'a': [1]} }}"
        "{{ messages|tojson(indent=2) }}{{ 'x'|center(5) }}{{ 1.25|round(1) }}{{ none }}"
        "{% for k, v in {'a': 1, 'b': messages}.items() %}{{ k }}{% endfor %}"
        "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}"
        "{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{{ messages|length }}"
        "{{ messages|map(attribute='content')|list }}{{ range(3)|batch(2)|list }}"
    )
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = environment().filters["tojson"]
    messages = [{"role": "user", "content": text} for text in ("a", "bé", "<c>")]
    expected = plain.from_string(source).render(messages=messages)
    assert environment().from_string(source).render(messages=messages) == expected


def test_a_long_conversation_is_far_from_the_bounds() -> None:
    source = Path(__file__).parents[2] / "examples/tiny-lfm2/chat_template.jinja"
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": "word " * 500} for i in range(3000)
    ]
    assert len(Template(source.read_text()).prompt(messages)) > 3000 * 2500
