"""Tokenizers that fine-tunes leave behind: recognised by their structure, or forced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from lfm2gguf import GGUFFile, convert, diagnose
from lfm2gguf.checkpoint import Tokenizer, TokenType, chat_templates
from lfm2gguf.errors import CheckpointError, UnsupportedError
from tests.cli.command import refusal
from tests.making.checkpoints import PLAIN, SPECIAL, TEMPLATE, write_json


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    write_json(folder / name, content)


def test_types_of_tokens(small: Path) -> None:
    tokenizer = Tokenizer.load(small)
    assert tokenizer.pre == "lfm2"
    tokens, types = tokenizer.padded(300)
    kinds = dict(zip(tokens, types, strict=True))
    assert all(kinds[text] is TokenType.CONTROL for text in SPECIAL)
    assert {kinds[text] for text in PLAIN[:2]} == {TokenType.CONTROL}  # by their looks
    assert {kinds[text] for text in ("<pad>", "<unused7>")} == {TokenType.CONTROL}
    assert {kinds[text] for text in ("Mathias", "a b")} == {TokenType.USER_DEFINED}
    assert kinds["\u0120the"] is TokenType.NORMAL
    assert (tokens[299], types[299]) == ("[PAD299]", TokenType.UNUSED)


def test_tokens_added_by_a_fine_tune(checkpoint: Path) -> None:
    """In tokenizer.json, in tokenizer_config.json only, or in both with the first one winning."""
    new = {"id": 290, "content": "<|mine|>", "special": True}
    edit(checkpoint, "tokenizer.json", lambda t: t["added_tokens"].append(new))
    extra = {"290": {"content": "other"}, "291": {"content": "yours", "special": False}}
    edit(checkpoint, "tokenizer_config.json", lambda t: t["added_tokens_decoder"].update(extra))
    tokens, types = Tokenizer.load(checkpoint).padded(300)
    assert (tokens[290], types[290]) == ("<|mine|>", TokenType.CONTROL)
    assert (tokens[291], types[291]) == ("yours", TokenType.USER_DEFINED)
    assert tokens[289] == "[PAD289]"
    convert(checkpoint, checkpoint / "f.gguf")
    assert GGUFFile.open(checkpoint / "f.gguf").get("tokenizer.ggml.tokens") == tokens


def test_a_text_that_is_known_already(checkpoint: Path) -> None:
    """What only tokenizer_config.json has under a second id is left out, as in transformers."""
    plain = Tokenizer.load(checkpoint).padded(300)
    stale = {"290": {"content": "<|im_end|>", "special": True}}
    edit(checkpoint, "tokenizer_config.json", lambda t: t["added_tokens_decoder"].update(stale))
    assert Tokenizer.load(checkpoint).padded(300) == plain


def test_two_tokens_of_the_same_text(checkpoint: Path, tmp_path: Path) -> None:
    again = {"id": 290, "content": "<|im_end|>", "special": True}
    edit(checkpoint, "tokenizer.json", lambda t: t["added_tokens"].append(again))
    message = refusal("convert", checkpoint, "-o", tmp_path / "f.gguf", within=tmp_path)
    assert "the tokens 7 and 290 of tokenizer.json are both '<|im_end|>'" in message


def test_a_token_past_the_embedding(small: Path) -> None:
    with pytest.raises(CheckpointError, match="resize_token_embeddings"):
        Tokenizer.load(small).padded(len(SPECIAL))


def test_a_pre_tokenizer_can_be_forced(checkpoint: Path) -> None:
    def other(content: Any) -> None:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\s+"

    edit(checkpoint, "tokenizer.json", other)
    with pytest.raises(UnsupportedError, match=r"\\\\s\+.*--pre"):
        convert(checkpoint, checkpoint / "f.gguf")
    convert(checkpoint, checkpoint / "f.gguf", pre="llama-bpe")
    assert GGUFFile.open(checkpoint / "f.gguf").get("tokenizer.ggml.pre") == "llama-bpe"


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json",
                                   "chat_template.json"])  # fmt: skip
def test_where_the_chat_template_may_be(checkpoint: Path, where: str) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    template = f"{{{{ 'from {where}' }}}}"
    if where.endswith(".jinja"):
        (checkpoint / where).write_text(template)
    elif where == "chat_template.json":
        write_json(checkpoint / where, {"chat_template": template})
    else:
        edit(checkpoint, where, lambda content: content.update(chat_template=template))
    convert(checkpoint, checkpoint / "f.gguf")
    assert GGUFFile.open(checkpoint / "f.gguf").get("tokenizer.chat_template") == template


def test_two_templates_that_differ(checkpoint: Path) -> None:
    """llama.cpp's converter takes one, transformers the other: so it is said."""
    (checkpoint / "chat_template.jinja").write_text("new\n")
    config = checkpoint / "tokenizer_config.json"
    edit(checkpoint, config.name, lambda content: content.update(chat_template="new"))
    assert convert(checkpoint, checkpoint / "f.gguf").notes == ()
    edit(checkpoint, config.name, lambda content: content.update(chat_template="old"))
    assert "is another" in convert(checkpoint, checkpoint / "f.gguf", overwrite=True).notes[0]
    assert GGUFFile.open(checkpoint / "f.gguf").get("tokenizer.chat_template") == "old"
    assert [f.what for f in diagnose(checkpoint).findings if "is another" in f.what]


def test_templates_by_name(checkpoint: Path) -> None:
    """As a list of names and templates, or as an object: the same file."""
    named = {"default": "plain", "tool_use": "tools"}
    several = [{"name": name, "template": text} for name, text in named.items()]
    for content in (several, named):
        edit(
            checkpoint, "tokenizer_config.json", lambda c, new=content: c.update(chat_template=new)
        )
        convert(checkpoint, checkpoint / "f.gguf", overwrite=True)
        file = GGUFFile.open(checkpoint / "f.gguf")
        assert file.get("tokenizer.chat_template") == "plain"
        assert file.get("tokenizer.chat_template.tool_use") == "tools"


def test_a_template_of_null_is_none(checkpoint: Path) -> None:
    edit(checkpoint, "tokenizer_config.json", lambda content: content.update(chat_template=None))
    convert(checkpoint, checkpoint / "f.gguf")
    assert GGUFFile.open(checkpoint / "f.gguf").get("tokenizer.chat_template") == TEMPLATE


def test_special_ids_come_from_the_files(checkpoint: Path) -> None:
    edit(checkpoint, "tokenizer_config.json", lambda t: t.update(eos_token="<|endoftext|>"))
    edit(checkpoint, "config.json", lambda c: c.update(eos_token_id=[7, 2]))
    convert(checkpoint, checkpoint / "f.gguf")
    file = GGUFFile.open(checkpoint / "f.gguf")
    assert file.get("tokenizer.ggml.eos_token_id") == 2
    assert file.get("tokenizer.ggml.bos_token_id") == 1


PLACES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json", "more")


@pytest.mark.parametrize("there", range(16))
def test_the_template_that_the_gguf_package_finds(checkpoint: Path, there: int) -> None:
    """In every combination of places the one is chosen that llama.cpp's converter writes."""
    places = {place for i, place in enumerate(PLACES) if there >> i & 1}
    (checkpoint / "chat_template.jinja").unlink()
    if "tokenizer_config.json" in places:
        edit(checkpoint, "tokenizer_config.json", lambda c: c.update(chat_template="config"))
    if "chat_template.jinja" in places:
        (checkpoint / "chat_template.jinja").write_text("file\n")
    if "chat_template.json" in places:
        write_json(checkpoint / "chat_template.json", {"chat_template": "old"})
    if "more" in places:
        (checkpoint / "additional_chat_templates").mkdir()
        (checkpoint / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert chat_templates(checkpoint) == gguf.SpecialVocab(checkpoint).chat_template
    (checkpoint / "tokenizer_config.json").unlink()
    assert chat_templates(checkpoint) is gguf.SpecialVocab(checkpoint).chat_template is None
