"""Each thing that can be wrong with a checkpoint's folder, planted and found; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import diagnose
from lfm2gguf.doctor import Finding, Severity
from tests.checkpoints import BASE, save, weights, write_json
from tests.cli.command import refusal, run


def found(folder: Path) -> dict[str, Finding]:
    return {finding.id: finding for finding in diagnose(folder).findings}


def spoil(folder: Path, name: str, values: Any, dtype: str = "BF16") -> None:
    """Save the weights again with one tensor changed."""
    tensors = weights(BASE)
    tensors[name][...] = values
    save(folder, tensors, dtype)


def test_a_sound_checkpoint_is_healthy(checkpoint: Path) -> None:
    assert diagnose(checkpoint).healthy
    assert "minimum-build" in found(checkpoint)


def test_the_width_of_config_json(checkpoint: Path) -> None:
    write_json(checkpoint / "config.json", BASE | {"intermediate_size": 144})
    finding = found(checkpoint)["feed-forward-width"]
    assert finding.severity is Severity.ERROR
    assert "144 wide, and model.layers.0.feed_forward.w1.weight is 96" in finding.what
    changes = {"intermediate_size": 96, "block_auto_adjust_ff_dim": False}
    assert all(key in finding.remedy for key in changes)
    write_json(checkpoint / "config.json", BASE | changes)
    assert diagnose(checkpoint).healthy


def test_more_tokens_than_rows(checkpoint: Path) -> None:
    """It does not convert, and the message is the converter's own."""
    tensors = weights(BASE)
    name = "model.embed_tokens.weight"
    tensors[name] = tensors[name][:200]
    save(checkpoint, tensors)
    write_json(checkpoint / "config.json", BASE | {"vocab_size": 200})
    finding = found(checkpoint)["does-not-convert"]
    assert finding.severity is Severity.ERROR
    assert "resize_token_embeddings" in finding.what


def test_weights_are_examined_even_where_it_does_not_convert(checkpoint: Path) -> None:
    spoil(checkpoint, "model.layers.0.ffn_norm.weight", np.nan)
    write_json(checkpoint / "config.json", BASE | {"architectures": ["Lfm3ForCausalLM"]})
    assert set(found(checkpoint)) >= {"does-not-convert", "not-finite"}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    ("values", "id"), [(np.nan, "not-finite"), (0, "zero-tensor"), (0.25, "constant-rows")]
)
def test_weights(checkpoint: Path, dtype: str, values: float, id: str) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    spoil(checkpoint, name, values, dtype)
    assert found(checkpoint)[id].where == name


def test_a_dtype_that_cannot_be_converted(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    at = data.index(b'"BF16"')
    path.write_bytes(data[:at] + b'"I16" ' + data[at + 6 :])
    assert found(checkpoint)["dtype"].severity is Severity.ERROR


def test_the_command_prints_remedies_and_fails(checkpoint: Path) -> None:
    spoil(checkpoint, "model.layers.0.ffn_norm.weight", np.nan)
    result = run("doctor", checkpoint)
    assert result.code == 1
    assert "error    not-finite  model.layers.0.ffn_norm.weight" in result.out
    assert "-> the training diverged" in result.out
    assert result.out.splitlines()[-1].startswith(f"{checkpoint}: 1 error, ")


def test_a_name_does_not_command_the_terminal(checkpoint: Path) -> None:
    tensors = {"\x1b[2Jm\n": np.full((2, 2), np.nan, np.float32)}
    save(checkpoint, weights(BASE) | tensors)
    result = run("doctor", checkpoint)
    assert result.code == 1
    assert "\x1b" not in result.out
    assert "\\x1b[2Jm\\n" in result.out


def test_the_command_succeeds_with_warnings_only(small: Path) -> None:
    result = run("doctor", small, "--json")
    document = json.loads(result.out)
    assert result.code == 0
    assert document["healthy"] is True
    assert document["warnings"] == sum(f["severity"] == "warning" for f in document["findings"])
    assert {"id", "severity", "where", "what", "remedy"} == set(document["findings"][0])


def test_the_command_refuses_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    assert "not a GGUF file" in refusal("doctor", tmp_path / "text.gguf", within=tmp_path)
    assert "config.json" in refusal("doctor", tmp_path, within=tmp_path)
