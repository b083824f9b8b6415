"""The requests: their lengths with LFM2's tokenizer, and the numbers that make them new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.bench.cells import CONTEXTS, plan, short, tokens
from lfm2gguf.bench.workloads import NUMBERS, WORDS, WORKLOAD_NAMES, Numbers, filler, workload
from lfm2gguf.errors import OptionError
from tests.making.realdata import needs, path_of

PUBLISHED = {"chat": (31, 100), "codegen": (65, 850), "rag": (752, 110), "agent": (602, 450)}
LENGTHS = PUBLISHED | {"edit": (420, 350)}


@needs("LFM2-1.2B")
@pytest.mark.parametrize("name", WORKLOAD_NAMES)
@pytest.mark.parametrize("number", [0, 7, 417_305, 999_999])
def test_prompts_have_the_published_lengths(name: str, number: int) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    from lfm2gguf.chat.template import Template

    folder = path_of("LFM2-1.2B")
    source = (folder / "chat_template.jinja").read_text("utf-8")
    text = Template(source, bos="<|startoftext|>").prompt(workload(name).messages(number))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == LENGTHS[name][0]


@needs("LFM2-1.2B")
def test_a_word_of_a_deep_prompt_is_a_token() -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    tokenizer = tokenizers.Tokenizer.from_file(str(path_of("LFM2-1.2B") / "tokenizer.json"))
    assert all(
        len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) == 1 for word in WORDS
    )


def test_the_texts_say_their_lengths() -> None:
    found = {
        name: (w.prompt_tokens, w.output_tokens)
        for name in WORKLOAD_NAMES
        for w in (workload(name),)
    }
    assert found == LENGTHS


@pytest.mark.parametrize("name", WORKLOAD_NAMES)
def test_a_prompt_starts_with_its_number(name: str) -> None:
    first, other = (workload(name).messages(number) for number in (3, 4))
    assert first[0]["content"].startswith("000003")
    assert first != other
    assert all("{number}" not in message["content"] for message in first)


@given(st.integers(0, NUMBERS - 1), st.lists(st.integers(1, 50), max_size=20))
def test_no_number_comes_twice(start: int, counts: list[int]) -> None:
    numbers = Numbers(vary=True, start=start)
    taken = [number for count in counts for number in numbers.take(count)]
    assert len(set(taken)) == len(taken)
    assert all(0 <= number < NUMBERS for number in taken)


def test_the_same_number_where_a_cache_shall_work() -> None:
    numbers = Numbers(vary=False, start=5)
    assert [*numbers.take(2), *numbers.take(1)] == [5, 5, 5]


def test_deep_prompts_differ_from_their_first_word_on() -> None:
    assert filler(50, 1).split()[0] != filler(50, 2).split()[0]
    assert filler(50, 1) == filler(50, 1)
    assert len(filler(50, 1).split()) == 51


def test_the_plan_is_the_published_tables() -> None:
    labels = [cell.label for cell in plan()]
    depth = [f"depth {n}" for n in ("1k", "2k", "4k", "8k", "16k", "32k")]
    assert labels == [*depth, "chat", "codegen", "rag", "agent", "agent x4", "edit"]
    assert [cell.label for cell in plan("workloads", workloads=["rag"], concurrency=[4, 1])] == [
        "rag", "rag x4",
    ]  # fmt: skip
    assert all(tokens(short(n)) == n for n in (*CONTEXTS, 1000, 100))


@pytest.mark.parametrize(
    "arguments",
    [
        {"suite": "deep"},
        {"workloads": ["chess"]},
        {"contexts": [0]},
        {"concurrency": [0]},
    ],
)
def test_what_there_is_none_of(arguments: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        plan(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "k", "1.5k", "-4", "4m"])
def test_no_context(text: str) -> None:
    with pytest.raises(OptionError, match="such as 4k"):
        tokens(text)
