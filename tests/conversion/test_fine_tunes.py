"""Fine-tunes as they really come: each is the plain checkpoint, changed as some trainer does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Tokenizer, TokenType
from lfm2gguf.checkpoint import tokenizer as tokenizer_module
from tests.cli.command import refusal, run
from tests.making.checkpoints import (
    MOE,
    Case,
    config,
    make,
    save,
    tokenizer,
    weights,
    write_json,
    write_safetensors,
)

PLAIN = config()
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Tensors = dict[str, np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(Case(PLAIN), tmp_path / "Tune")


def converted(folder: Path, type: str = "BF16") -> GGUFFile:
    target = folder.parent / "out.gguf"
    return GGUFFile.open(convert(folder, target, type, jobs=1, overwrite=True).files[0].path)


def renamed(change: Callable[[str], str]) -> Tensors:
    return {change(name): x for name, x in weights(PLAIN).items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("model.layers.", "model._orig_mod.layers."),
        lambda name: name.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
        lambda name: name.replace(".conv.", "._checkpoint_wrapped_module.conv."),
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: name.removeprefix("model."),
        lambda name: f"_orig_mod.{name.removeprefix('model.')}",
    ],
    ids=[
        "compile",
        "compiled-part",
        "fsdp",
        "checkpointing",
        "ddp",
        "peft",
        "bare",
        "bare-compile",
    ],
)
def test_names_as_wrappers_leave_them(folder: Path, change: Callable[[str], str]) -> None:
    plain = converted(folder).path.read_bytes()
    tensors = renamed(change)
    assert set(tensors) != set(weights(PLAIN))
    save(folder, tensors)
    assert converted(folder).path.read_bytes() == plain


def test_an_index_of_the_one_file_there_is(folder: Path) -> None:
    plain = converted(folder).path.read_bytes()
    index = {"weight_map": dict.fromkeys(weights(PLAIN), "model.safetensors")}
    write_json(folder / "model.safetensors.index.json", index)
    assert converted(folder).path.read_bytes() == plain


def test_two_names_for_one_tensor(folder: Path, tmp_path: Path) -> None:
    save(folder, weights(PLAIN) | {f"_orig_mod.{EMBEDDING}": weights(PLAIN)[EMBEDDING]})
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert f"'_orig_mod.{EMBEDDING}' are both '{EMBEDDING}'" in message


@pytest.mark.slow
def test_a_wrapped_mixture_of_experts(tmp_path: Path) -> None:
    folder = make(Case(MOE), tmp_path / "Tune")
    plain = converted(folder).path.read_bytes()
    save(folder, {f"_orig_mod.{name}": x for name, x in weights(MOE).items()})
    assert converted(folder).path.read_bytes() == plain


def test_an_adapter_beside_its_model(folder: Path, tmp_path: Path) -> None:
    tensors = renamed(lambda name: f"base_model.model.{name}")
    q = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors[f"{q}.base_layer.weight"] = tensors.pop(f"{q}.weight")
    tensors[f"{q}.lora_A.default.weight"] = np.zeros((4, 64), np.float32)
    save(folder, tensors)
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert "is an adapter's, not merged" in message
    assert "merge_and_unload" in message


def test_a_tied_head_saved_twice(folder: Path) -> None:
    plain = converted(folder).path.read_bytes()
    tensors = weights(PLAIN)
    save(folder, tensors | {HEAD: tensors[EMBEDDING]})
    result = convert(folder, folder.parent / "out.gguf", "BF16", overwrite=True)
    assert list(result.left_out) == [HEAD]
    assert result.notes == ()
    assert result.files[0].path.read_bytes() == plain


def test_a_tied_head_that_differs_is_kept(folder: Path) -> None:
    """As transformers 5 loads it: one weight that differs makes it a matrix of its own."""
    tensors = weights(PLAIN)
    head = tensors[EMBEDDING].copy()
    head[299, 63] = 7.0
    save(folder, tensors | {HEAD: head})
    result = convert(folder, folder.parent / "out.gguf", "F32", overwrite=True)
    assert "differs from the embedding" in result.notes[0]
    assert not result.left_out
    file = GGUFFile.open(result.files[0].path)
    written = file.data("output.weight").view(np.float32)
    assert written[299, 63] == 7.0
    assert file.data("token_embd.weight").view(np.float32)[299, 63] != 7.0
    shown = run("convert", folder, "-o", folder.parent / "out.gguf", "--force", "--json", "-q")
    assert "differs" in json.loads(shown.out)["notes"][0]


def test_a_tied_head_saved_instead_of_the_embedding(folder: Path) -> None:
    """Savers that store shared weights once may keep either name."""
    plain = converted(folder).path.read_bytes()
    save(folder, renamed(lambda name: HEAD if name == EMBEDDING else name))
    assert converted(folder).path.read_bytes() == plain


def test_an_untied_head(folder: Path) -> None:
    untied = config(tie_word_embeddings=False)
    write_json(folder / "config.json", untied)
    save(folder, weights(untied))
    assert "output.weight" in converted(folder).tensors


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("optimizer.state.0.exp_avg", "training"),
        ("v_head.summary.weight", "training"),
        ("model.pos_emb.inv_freq", "config"),
        ("model.layers.1.self_attn.rotary_emb.inv_freq", "config"),
        ("model.rotary_emb.original_inv_freq", "config"),
    ],
)
def test_what_only_training_needs_is_left_out(folder: Path, name: str, why: str) -> None:
    plain = converted(folder).path.read_bytes()
    save(folder, weights(PLAIN) | {name: np.ones(8, np.float32)})
    result = convert(folder, folder.parent / "out.gguf", "BF16", overwrite=True)
    assert why in result.left_out[name]
    assert result.files[0].path.read_bytes() == plain


def test_what_zero_3_did_not_gather(folder: Path, tmp_path: Path) -> None:
    name = "model.layers.0.feed_forward.w1.weight"
    save(folder, weights(PLAIN) | {name: np.empty(0, np.float32)})
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert f"'{name}' is empty" in message
    assert "zero_to_fp32.py" in message


def test_any_other_tensor_stops_it(folder: Path, tmp_path: Path) -> None:
    save(folder, weights(PLAIN) | {"model.router.weight": np.ones(8, np.float32)})
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert "'model.router.weight' does not belong" in message


@pytest.mark.parametrize("rows", [283, 301, 512])
def test_a_vocabulary_grown_or_shrunk(tmp_path: Path, rows: int) -> None:
    """Embeddings of any number of rows; those that no token has are unused."""
    folder = make(Case(config(vocab_size=rows)), tmp_path / "Tune")
    file = converted(folder, "Q4_K_M")
    assert file.tensors["token_embd.weight"].shape == (rows, 64)
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert len(tokens) == len(types) == rows
    last = max(t["id"] for t in tokenizer()["tokenizer.json"]["added_tokens"])
    assert all(token == f"[PAD{i}]" for i, token in enumerate(tokens) if i > last)
    assert set(types[last + 1 :]) <= {TokenType.UNUSED.value}


def with_tokens(folder: Path, *added: tuple[int, str, bool]) -> None:
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    for id, content, special in added:
        data["added_tokens"].append({"id": id, "content": content, "special": special})
    write_json(path, data)


def test_tokens_added_past_the_last_id(folder: Path) -> None:
    with_tokens(folder, (290, "<tool>", True), (295, "Weimar", False))
    file = converted(folder)
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert (tokens[290], types[290]) == ("<tool>", TokenType.CONTROL.value)
    assert (tokens[295], types[295]) == ("Weimar", TokenType.USER_DEFINED.value)
    assert types[291] == TokenType.UNUSED.value


def test_a_token_past_the_embedding(folder: Path, tmp_path: Path) -> None:
    with_tokens(folder, (300, "<tool>", True))
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert "id 300 ('<tool>')" in message
    assert "resize_token_embeddings" in message


def test_one_file_without_metadata_in_float32(folder: Path) -> None:
    """BF16 weights that a trainer saved as float32 come out as they were."""
    plain = converted(folder).path.read_bytes()
    cut = {n: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for n, x in weights(PLAIN).items()}
    path = folder / "model.safetensors"
    write_safetensors(path, cut, "F32")
    raw = path.read_bytes()
    mark = b'"__metadata__": {"format": "pt"}, '
    assert mark in raw
    length = int.from_bytes(raw[:8], "little") - len(mark)
    path.write_bytes(length.to_bytes(8, "little") + raw[8:].replace(mark, b"", 1))
    assert converted(folder).path.read_bytes() == plain


def test_pickles_are_refused_with_advice(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refusal("convert", folder, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert "save_pretrained" in message


def test_the_template_in_the_tokenizers_config(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"chat_template": template})
    assert converted(folder).get("tokenizer.chat_template") == template


def test_several_named_templates(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named = [
        {"name": name, "template": text}
        for name, text in (("default", template), ("tool_use", "tools"), ("rag", "documents"))
    ]
    path = folder / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"chat_template": named})
    file = converted(folder)
    assert file.get("tokenizer.chat_template") == template
    assert file.get("tokenizer.chat_template.tool_use") == "tools"
    assert file.get("tokenizer.chat_template.rag") == "documents"
    assert file.get("tokenizer.chat_templates") == ["rag", "tool_use"]


def test_no_generation_config(folder: Path) -> None:
    assert not (folder / "generation_config.json").exists()
    assert not [key for key in converted(folder).metadata if key.startswith("general.sampling")]


class TestThe128000Family:
    """Its tokenizer is recognised by merges and special tokens: made up here, at its true ids."""

    def write(self, folder: Path, **changes: Any) -> Path:
        main = tokenizer()["tokenizer.json"]
        main["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\p{N}|\s+"
        main["model"]["merges"] = [["a", "b"]] * changes.get("merges", 293_320)
        ids = tokenizer_module.LARGE_IDS | changes.get("ids", {})
        main["added_tokens"] = [
            {"id": id, "content": text, "special": True} for text, id in ids.items()
        ]
        folder.mkdir()
        write_json(folder / "tokenizer.json", main)
        return folder

    def test_it_is_lfm2(self, tmp_path: Path) -> None:
        assert Tokenizer.load(self.write(tmp_path / "T")).pre == "lfm2"

    @pytest.mark.slow
    @pytest.mark.parametrize("changes", [{"merges": 293_319}, {"ids": {"<|im_end|>": 7}}])
    def test_anything_else_is_asked_about(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        folder = self.write(tmp_path / "T", **changes)
        with pytest.raises(Exception, match="give that name with --pre"):
            Tokenizer.load(folder)
        assert Tokenizer.load(folder, pre="lfm2").pre == "lfm2"
