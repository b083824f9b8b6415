"""Texts, conversations, and how they become scored positions."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.errors import CheckpointError, HubError, OptionError
from lfm2gguf.verification import Engine, Material, Session, prepare
from lfm2gguf.verification.material.conversations import (
    chat_samples,
    rendered,
    template_of,
)
from lfm2gguf.verification.material.models import ReferenceModel, open_reference
from lfm2gguf.verification.material.preparation import _encode_enough
from lfm2gguf.verification.material.rows import EXAMPLES, read_rows
from lfm2gguf.verification.material.texts import cut, load_texts, python_docs
from lfm2gguf.verification.report.data import to_json
from lfm2gguf.verification.report.markdown import markdown
from tests.making.realdata import real


def test_a_text_is_cut_as_llama_perplexity_cuts_it() -> None:
    ids = np.arange(100, 135, dtype=np.int32)
    samples = cut(ids, 16, None, bos=1)
    assert [list(s.ids) for s in samples] == [[1, *range(101, 116)], [1, *range(117, 132)]]
    # From the middle on, and the last token has no successor in its chunk: 16 - 1 - 8 positions.
    assert list(samples[0].positions) == list(range(8, 15))
    assert list(samples[0].targets) == list(range(109, 116))
    assert len(cut(ids, 16, 1, bos=1)) == 1
    assert cut(ids, 16, None, bos=None)[0].ids[0] == 100
    assert cut(ids[:15], 16, None, bos=1) == []


def test_the_default_text_is_there_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    text = python_docs()
    assert len(text) > 300_000
    assert text == python_docs()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # as some distributions have it
    fallback = python_docs()
    assert len(fallback) > 20_000
    assert "0x" not in fallback[:2000]


def test_files_are_read_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes("Grüße\r\n日本".encode())
    assert load_texts([tmp_path / "good.txt"])[0].content == "Grüße\r\n日本"
    (tmp_path / "bad.txt").write_bytes(b"abc\xff")
    with pytest.raises(OptionError, match=r"bad\.txt: the text is not UTF-8 \(byte 3\)"):
        load_texts([tmp_path / "bad.txt"])
    with pytest.raises(OptionError, match="No such file"):
        load_texts([tmp_path / "absent.txt"])


def test_wikitext_comes_out_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    archive = tmp_path / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("wikitext-2-raw/wiki.test.raw", " = Robert Boulter = \n")

    def fetch(repository: str, name: str, repo_type: str) -> str:
        assert (repository, name, repo_type) == ("ggml-org/ci", archive.name, "dataset")
        return str(archive)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert load_texts(["wikitext-2"])[0].content == " = Robert Boulter = \n"


def test_without_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fetch(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(HubError, match=r"offline.*--text"):
        load_texts(["wikitext-2"])


def test_a_short_text_is_refused(example: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short.")
    with pytest.raises(OptionError, match="less than one chunk of 512"):
        prepare(open_reference(example), Material(tmp_path / "short.txt"))


def test_a_prefix_gives_the_tokens_of_the_whole(example: Path) -> None:
    model = open_reference(example)
    whole = model.encode(python_docs())
    _, ids = _encode_enough(model, python_docs(), 1024)
    assert 1024 < len(ids) < len(whole)
    np.testing.assert_array_equal(ids[:1024], whole[:1024])
    blanks = " " * 40_000 + python_docs()  # far more characters a token than is usual
    content, ids = _encode_enough(model, blanks, 2048)
    assert content == blanks
    np.testing.assert_array_equal(ids, model.encode(blanks))


def test_the_tokenizer_adds_bos_once(example: Path) -> None:
    model = open_reference(example)
    assert model.bos == 1
    assert list(model.encode("a")[:1]) == [1]
    assert list(model.encode("")) == [1]


def test_llama_cpp_finds_the_same_tokens(example: Path, files: dict[str, Path]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    text = "def f(x):\n\treturn  x ** 2 <|im_end|> Grüße 日本語 👍🏽 ١٢٣ \r\n\r\n  'tis"
    a, b = open_reference(example), open_reference(files["BF16"])
    assert isinstance(a, ReferenceModel)
    np.testing.assert_array_equal(a.encode(text), b.encode(text))
    assert a.bos == b.bos


# --- conversations -------------------------------------------------------------------------

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is `len`?"},
    {"role": "assistant", "content": "A function."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "You are welcome."},
]


def write_lines(path: Path, *values: object) -> Path:
    path.write_text("\n".join(json.dumps(value) for value in values), encoding="utf-8")
    return path


def test_only_the_assistants_tokens_are_scored(example: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    path = write_lines(tmp_path / "chat.jsonl", {"messages": TURNS}, TURNS[1:3])
    samples = chat_samples(example, path)
    assert len(samples) == 2
    tokenizer = Tokenizer.from_file(str(example / "tokenizer.json"))
    text, ids, sample = samples[0]
    assert text.count("<|startoftext|>") == list(ids).count(1) == 1
    said = tokenizer.decode(sample.targets.tolist(), skip_special_tokens=False)
    assert said == "A function.<|im_end|>\nYou are welcome.<|im_end|>\n"


def test_a_template_that_rewrites_history_gives_one_text_for_each_answer(
    example: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}]"
        "{% generation %}{{ m.content if loop.last else m.content | replace('A', '') }}"
        "{% endgeneration %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (folder / "tokenizer_config.json").write_text("{}")
    found = list(rendered(template_of(folder), {"messages": TURNS}))
    assert [text[a:b] for text, [(a, b)] in found] == ["A function.", "You are welcome."]
    assert "[assistant] function.[user]" in found[1][0]


@pytest.mark.parametrize("name", ["LFM2-8B-A1B", "LFM2.5-8B-A1B", "LFM2.5-Instruct"])
def test_real_templates_render(name: str, tmp_path: Path) -> None:
    source = real(f"chat_templates/{name}.jinja")
    (tmp_path / "chat_template.jinja").write_text(source.read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|startoftext|>"}')
    text, spans = next(rendered(template_of(tmp_path), {"messages": TURNS[1:3]}))
    assert text.startswith("<|startoftext|><|im_start|>user\nWhat is `len`?<|im_end|>\n")
    assert [text[a:b] for a, b in spans] == ["A function.<|im_end|>\n"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no conversation"),
        ("{", "line 1: is not JSON"),
        ('{"messages": 3}', r"line 1: has the keys messages, .* a line looks like \{"),
        ('\n["text"]', "row 1: is a value, which fits no form"),
        ('{"text": "Hi"}', "line 1: has the keys text, which fits no form"),
        ('{"messages": []}', "fits no form"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "not read: .*narrator"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "not read: .*imag",
        ),
        (
            '{"prompt": "Hi", "chosen": "a", "rejected": "b"}',
            "prompt, chosen, rejected, which fits",
        ),
        ('{"question": "Hi", "answer": "a"}', r"fits no form .* a line looks like \{"),
        ('{"messages": [{"role": "user"}]}', "fits no form"),
        ('{"instruction": "x"}', "fits no form"),
        ('{"prompt": "x", "completion": [1]}', "fits no form"),
        ('{"prompt": "x", "completion": "y", "tools": "z"}{', "line 1: is not JSON"),
        ('{"prompt": "x", "completion": "y", "tools": {"a": 1}}', "no list of functions"),
        ("[" * 100_000, "line 1: is not JSON"),
    ],
)
def test_a_bad_file_of_conversations_names_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(content)
    with pytest.raises(OptionError, match=message):
        read_rows(path)


HI: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]
SAID = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SYSTEM: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
CALL = {"name": "f", "arguments": {"a": 1}}
TOOL = {"type": "function", "function": {"name": "f"}}
FORMS: dict[str, tuple[object, list[dict[str, Any]]]] = {
    "messages": ({"messages": HI}, HI),
    "a bare list": (HI, HI),
    "ShareGPT": ({"conversations": SAID, "id": 3}, HI),
    "ShareGPT with a system text": ({"system": "Be brief.", "conversations": SAID}, SYSTEM + HI),
    "ShareGPT's key, the Hub's names": ({"conversations": HI}, HI),
    "ShareGPT with a tool": (
        {"conversations": [*SAID, {"from": "observation", "value": "3"}]},
        [*HI, {"role": "tool", "content": "3"}],
    ),
    "Alpaca": ({"instruction": "Hi", "input": "", "output": "Hello"}, HI),
    "Alpaca with an input": (
        {"instruction": "Say", "input": "it", "output": "Hello"},
        [{"role": "user", "content": "Say\nit"}, HI[1]],
    ),
    "Alpaca with a history": (
        {
            "instruction": "Hi",
            "output": "Hello",
            "history": [["Hi", "Hello"]],
            "system": "Be brief.",
        },
        SYSTEM + HI + HI,
    ),
    "prompt and completion": ({"prompt": "Hi", "completion": "Hello"}, HI),
    "prompt and response": ({"prompt": "Hi", "response": "Hello"}, HI),
    "parts that are texts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, HI[1]]},
        HI,
    ),
    "a context, as in Dolly": (
        {"instruction": "Say", "context": "it", "response": "Hello"},
        [{"role": "user", "content": "Say\nit"}, HI[1]],
    ),
    "Alpaca with an input alone": ({"instruction": "", "input": "Hi", "output": "Hello"}, HI),
    "a prompt as messages, a completion as text": ({"prompt": HI[:1], "completion": "Hello"}, HI),
    "ShareGPT with a call": (
        {"conversations": [SAID[0], {"from": "function_call", "value": json.dumps(CALL)}]},
        [HI[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}],
    ),
    "ShareGPT with a call that is none": (
        {"conversations": [SAID[0], {"from": "function_call", "value": "f()"}]},
        [HI[0], {"role": "assistant", "content": "f()"}],
    ),
    "messages with a call": (
        {"messages": [HI[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        [HI[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}],
    ),
    "prompt and completion as messages": ({"prompt": HI[:1], "completion": HI[1:]}, HI),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_row_of_training_data_is_a_conversation(name: str, tmp_path: Path) -> None:
    row, messages = FORMS[name]
    expected = {"messages": messages, "tools": None}
    assert read_rows(write_lines(tmp_path / "lines.jsonl", row, row)) == [expected] * 2
    (tmp_path / "whole.json").write_text(json.dumps([row, row], indent=2), encoding="utf-8-sig")
    assert read_rows(tmp_path / "whole.json") == [expected] * 2
    if isinstance(row, dict):
        (tmp_path / "one.json").write_text(json.dumps(row, indent=2))
        assert read_rows(tmp_path / "one.json") == [expected]
        tools = write_lines(tmp_path / "t.jsonl", {**row, "tools": json.dumps([TOOL])})
        assert read_rows(tools)[0]["tools"] == [TOOL]


def test_every_example_of_a_line_is_one(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(EXAMPLES))
    assert [row["messages"][1:] for row in read_rows(path)] == [HI[1:]] * len(EXAMPLES)


def test_line_ends_of_other_languages_are_text(tmp_path: Path) -> None:
    """JSON escapes none of them: a row is a line to JSON lines alone."""
    row = {"messages": [{"role": "user", "content": "a\u2028b\u2029c\x85d"}, HI[1]]}
    line = json.dumps(row, ensure_ascii=False)
    path = tmp_path / "chat.jsonl"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"{line}{end}{end}{line}".encode())
        assert [found["messages"] for found in read_rows(path)] == [row["messages"]] * 2


@pytest.mark.parametrize("name", ["ShareGPT with a call", "messages with a call"])
def test_a_call_is_scored(example: Path, tmp_path: Path, name: str) -> None:
    """Though the template knows none: it stands as the model writes it, and serve's prompts."""
    ((text, _, sample),) = chat_samples(example, write_lines(tmp_path / "c.jsonl", FORMS[name][0]))
    call = "<|tool_call_start|>[f(a=1)]<|tool_call_end|>"
    assert f"<|im_start|>assistant\n{call}<|im_end|>" in text
    assert len(sample.targets) > 8


def test_all_forms_give_the_same_tokens(example: Path, tmp_path: Path) -> None:
    rows = [row for row, messages in FORMS.values() if messages == HI]
    samples = chat_samples(example, write_lines(tmp_path / "chat.jsonl", *rows))
    assert len(samples) == len(rows)
    assert len({text for text, _, _ in samples}) == 1


def test_a_conversation_without_an_answer_is_refused(example: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no assistant message"):
        chat_samples(example, write_lines(tmp_path / "chat.jsonl", TURNS[:2]))


def test_a_checkpoint_without_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no chat template"):
        template_of(tmp_path)


def test_conversations_are_verified_like_texts(
    example: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    words = python_docs()
    long = [
        {"role": "user", "content": words[:2000]},
        {"role": "assistant", "content": words[2000:4000]},
    ]
    path = write_lines(tmp_path / "chat.jsonl", {"messages": TURNS}, TURNS[1:3], long)
    result = lfm2gguf.verify(
        files["Q8_0"], example, material=Material(chat=path), engine=Engine(threads=1)
    )
    assert result.passed, result.failures
    assert [text["name"] for text in result.texts] == ["chat.jsonl"]
    assert len(result.figures.chunks) == 3
    assert result.figures.tokens == sum(chunk.tokens for chunk in result.figures.chunks)


def test_the_report_says_what_was_read(session: Session) -> None:
    described = session.prepared.texts[0].describe()
    assert described["name"] == "python-docs"
    assert described["chunks"] == len(session.prepared.samples)


@pytest.mark.parametrize("as_object", [False, True])
def test_of_two_templates_the_one_that_was_written_is_scored(
    as_object: bool, example: Path, tmp_path: Path
) -> None:
    """convert took tokenizer_config.json's, verify chat_template.jinja: what nobody is shown."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = shutil.copytree(example, tmp_path / "model")
    other = (folder / "chat_template.jinja").read_text() + "{# 2 #}"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    given = {"default": other, "tool_use": "tools"} if as_object else other
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": given}))

    made = lfm2gguf.convert(folder, tmp_path / "model.gguf", "F32", jobs=1)
    note = next(note for note in made.notes if "is another" in note)
    assert [f.what for f in lfm2gguf.diagnose(folder).findings if f.id == "conversion"] == [note]
    with lfm2gguf.Runner(made.files[0].path, device="cpu", threads=1, context=256) as lfm:
        written = lfm.prompts.templates.plain
    assert template_of(folder).source == written.source == other
    question = [{"role": "user", "content": "What?"}]
    assert template_of(folder).prompt(question) == written.prompt(question)

    path = write_lines(tmp_path / "chat.jsonl", {"messages": TURNS})
    result = lfm2gguf.verify(
        made.files[0].path, folder, material=Material(chat=path), engine=Engine(threads=1)
    )
    assert [text["note"] for text in result.texts] == [note]
    assert note in markdown([result])
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(
        to_json([result]),
        json.loads((resources("lfm2gguf.verification") / "report.schema.json").read_text()),
    )
