"""What a member was trained for, told alike to everybody who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from lfm2gguf.doctor import diagnose
from lfm2gguf.doctor.subject import from_gguf
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.export.programs import export_for
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType
from lfm2gguf.members import is_retrieval, member_of, trained_context
from lfm2gguf.runner import Runner
from lfm2gguf.sampling import default_options
from lfm2gguf.verification.material.models import open_reference
from tests.chat.test_template import load
from tests.doctor.conftest import mixture
from tests.doctor.operations import Change, f32, rewrite
from tests.making.models import tiny_gguf

__all__ = ["mixture"]  # a fixture

SMALL, LARGE = 65_536, 128_000


def uint32(value: int) -> Value:
    return Value(ValueType.UINT32, value)


def written(path: Path, architecture: str, tokens: int = 0, **general: str) -> GGUFFile:
    """A file's metadata, by the gguf package."""
    writer = GGUFWriter(path, architecture)
    for key, value in general.items():
        writer.add_string(f"general.{key}", value)
    writer.add_context_length(128_000)
    writer.add_chat_template(load("tiny-lfm2").source)
    if tokens:
        writer.add_vocab_size(tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return GGUFFile.open(path)


@pytest.mark.parametrize(
    ("architecture", "tokens", "name", "context", "temperature", "thinks"),
    [
        ("lfm2", SMALL, "LFM2-1.2B", 32_768, 0.3, False),
        ("lfm2", 0, "LFM2.5-1.2B-Instruct", 32_768, 0.1, False),
        ("lfm2", SMALL, "LFM2.5-1.2B-Thinking", 32_768, 0.05, True),
        ("lfm2", LARGE, "LFM2.5-2.6B", 32_768, 0.1, True),
        ("lfm2", LARGE, "my-finetune", 32_768, 0.1, True),
        ("lfm2", LARGE, "LFM2.5-VL-3B", 32_768, 0.1, False),
        ("lfm2moe", SMALL, "LFM2-8B-A1B", 32_768, 0.3, False),
        ("lfm2moe", SMALL, "my-finetune", 32_768, 0.3, False),
        ("lfm2moe", 0, "LFM2.5-8B-A1B", 131_072, 0.2, True),
        ("lfm2moe", LARGE, "my-finetune", 131_072, 0.2, True),
        ("lfm2moe", LARGE + 7, "my-finetune", 131_072, 0.2, True),
        ("lfm2moe", LARGE, "my Extract", 131_072, 0.0, True),
    ],
)
def test_a_member_is_told_by_name_and_by_what_a_name_cannot_change(
    architecture: str,
    tokens: int,
    name: str,
    context: int,
    temperature: float,
    thinks: bool,
    tmp_path: Path,
) -> None:
    """Runner, doctor and export say the same of a file, whatever it is called."""
    file = written(tmp_path / "a.gguf", architecture, tokens, name=name)
    assert trained_context(file) == min(context, 128_000)
    assert default_options(file).temperature == temperature
    assert (member_of(file).context, member_of(file).thinks) == (context, thinks)
    said = [f for f in diagnose(file.path).findings if f.id == "context-length"]
    assert [f"at most {context} " in finding.remedy for finding in said] == (
        [True] if context < 128_000 else []
    )
    made = export_for("ollama", file.path)
    assert made.settings["temperature"] == temperature
    assert f"\nPARSER lfm2{'-thinking' * thinks}\n" in made.text


def test_the_vocabulary_is_its_tokens() -> None:
    metadata: dict[str, object] = {"general.architecture": "lfm2moe"}
    for tokens in (SMALL, LARGE):
        there = metadata | {"tokenizer.ggml.tokens": [""] * tokens, "lfm2moe.vocab_size": 0}
        assert member_of(there).context == (131_072 if tokens == LARGE else 32_768)


def test_a_larger_mixture_is_told_by_its_experts() -> None:
    metadata: dict[str, object] = {"general.architecture": "lfm2moe", "lfm2moe.expert_count": 64}
    assert member_of(metadata).sampling == member_of({"general.name": "LFM2-24B-A2B"}).sampling
    assert member_of(metadata).sampling != member_of({}).sampling


@pytest.mark.parametrize("key", ["name", "basename", "finetune", "size_label"])
def test_every_part_of_the_name_counts(key: str, tmp_path: Path) -> None:
    about = {"name": "LFM2.5", key: "LFM2.5 8B A1B" if key != "finetune" else "LFM2.5_8B-A1B"}
    file = written(tmp_path / "a.gguf", "lfm2moe", **about)
    assert trained_context(file) == 128_000
    assert default_options(file).top_k == 80
    assert member_of(file).thinks


def test_less_context_than_trained_is_what_the_file_says() -> None:
    metadata: dict[str, object] = {"general.architecture": "lfm2", "lfm2.context_length": 4096}
    assert trained_context(metadata) == 4096


@pytest.mark.parametrize("hostile", [[1, 2], {}, None, -1, "x"])
def test_values_of_another_kind_are_no_sign(hostile: Any) -> None:
    metadata: dict[str, object] = {"general.architecture": "lfm2moe"}
    keys = ("expert_count", "vocab_size", "context_length")
    metadata |= {f"lfm2moe.{key}": hostile for key in keys} | {"tokenizer.ggml.tokens": hostile}
    assert member_of(metadata) == member_of({})


# --- for retrieval or not ------------------------------------------------------------------


Metadata = dict[str, Any]
SIGNS: list[tuple[Metadata, bool, bool]] = [  # keys, a dense layer, and whether it embeds
    ({}, False, False),
    ({"pooling_type": uint32(0)}, False, False),
    ({"pooling_type": uint32(2)}, False, True),
    ({"attention.causal": Value(ValueType.BOOL, True)}, False, False),
    ({"attention.causal": Value(ValueType.BOOL, False)}, False, True),
    ({}, True, True),
    ({"pooling_type": uint32(0)}, True, True),
]


@pytest.mark.parametrize(("keys", "dense", "embeds"), SIGNS)
@pytest.mark.parametrize("architecture", ["lfm2", "lfm2moe"])
def test_one_rule_says_what_is_for_retrieval(
    architecture: str,
    keys: Metadata,
    dense: bool,
    embeds: bool,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Doctor, verify and (the tests below) the runner ask it; llama.cpp's arithmetic decides."""
    source = tiny_gguf() if architecture == "lfm2" else request.getfixturevalue("mixture")
    width = GGUFFile.open(source).tensors["token_embd.weight"].shape[1]
    tensors = {"dense_2.weight": f32(np.eye(width, dtype=np.float32))} if dense else {}
    change = Change(
        {f"{architecture}.{key}": value for key, value in keys.items()}, tensors=tensors
    )
    path = rewrite(source, tmp_path / "a.gguf", change)
    file = GGUFFile.open(path)
    assert is_retrieval(file, file.tensors) is embeds
    assert from_gguf(path).generates is not embeds
    assert (open_reference(path).retrieval is not None) is embeds


@pytest.mark.parametrize(("pooling", "embeds"), [(0, False), (2, True)])
def test_the_runner_goes_by_the_same_rule(pooling: int, embeds: bool, tmp_path: Path) -> None:
    change = Change({"lfm2.pooling_type": uint32(pooling)})
    path = rewrite(tiny_gguf(), tmp_path / "a.gguf", change)
    with Runner(path, device="cpu", threads=1, context=256) as lfm:
        if embeds:
            assert lfm.embed(["Hello."])[0].shape == (256,)
        else:
            with pytest.raises(UnsupportedError, match="not for embeddings"):
                lfm.embed(["Hello."])
