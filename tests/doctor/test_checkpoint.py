"""Each thing that can be wrong with a checkpoint's folder, planted and found; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import diagnose
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.doctor import Finding, Severity
from lfm2gguf.errors import UnsupportedError
from tests.cli.command import refusal, run
from tests.making import multimodal
from tests.making.checkpoints import BASE, save, weights, write_json


def found(folder: Path) -> dict[str, Finding]:
    return {finding.id: finding for finding in diagnose(folder).findings}


def spoil(folder: Path, name: str, values: Any, dtype: str = "BF16") -> None:
    """Save the weights again with one tensor changed."""
    tensors = weights(BASE)
    tensors[name][...] = values
    save(folder, tensors, dtype)


def test_a_sound_checkpoint_is_healthy(checkpoint: Path) -> None:
    assert diagnose(checkpoint).findings == ()
    assert "llama.cpp" in diagnose(checkpoint).facts[0]


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


@pytest.mark.parametrize("name", ["LFM2-VL-450M", "LFM2.5-Audio-1.5B"])
def test_a_model_of_two_files(name: str, tmp_path: Path) -> None:
    """No tensor that neither file holds is examined, and a kernel of 1 x 1 is no row."""
    ids = set(found(multimodal.make_multimodal(multimodal.CASES[name], tmp_path / name)))
    width = {"conversion"} if "Audio" in name else set()  # of the encoder, which is small
    assert ids == width


def test_the_projector_is_planned_too(tmp_path: Path) -> None:
    source = multimodal.make_multimodal(multimodal.CASES["LFM2-VL-450M"], tmp_path / "VL")
    (source / "preprocessor_config.json").unlink()
    finding = found(source)["does-not-convert"]
    assert finding.severity is Severity.ERROR
    assert "image_mean" in finding.what


def test_a_constant_kernel_of_one_by_one_is_found(tmp_path: Path) -> None:
    case = multimodal.CASES["LFM2.5-Audio-1.5B"]
    source = multimodal.make_multimodal(case, tmp_path / "Audio")
    name = "conformer.pre_encode.conv.3.weight"
    info = Checkpoint.open(source).tensors[name]
    with info.file.open("r+b") as file:
        file.seek(info.offset)
        file.write(b"\x80\x3f" * info.shape[1])  # the first row: ones, in BF16
    finding = found(source)["constant-rows"]
    assert (finding.where, finding.what.split(" (")[0]) == (name, f"1 of {info.shape[0]} rows")


def test_what_only_training_needs_is_not_examined(checkpoint: Path) -> None:
    save(checkpoint, weights(BASE) | {"optimizer.state": np.full((4, 4), np.nan, np.float32)})
    assert diagnose(checkpoint).healthy


def test_an_adapters_folder(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    write_json(checkpoint / "adapter_config.json", {})
    with pytest.raises(UnsupportedError, match=r"is a LoRA adapter.*--lora ADAPTER"):
        diagnose(checkpoint)


def test_a_name_that_is_no_text(checkpoint: Path) -> None:
    write_json(checkpoint / "config.json", BASE | {"_name_or_path": 5})
    assert "_name_or_path" in found(checkpoint)["does-not-convert"].what


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


def test_the_command_succeeds_with_warnings_only(checkpoint: Path) -> None:
    spoil(checkpoint, "model.layers.1.self_attn.q_proj.weight", 0.25)
    result = run("doctor", checkpoint, "--json")
    document = json.loads(result.out)
    assert result.code == 0
    assert document["healthy"] is True
    assert document["warnings"] > 0
    assert document["warnings"] == sum(f["severity"] == "warning" for f in document["findings"])
    assert {"id", "severity", "where", "what", "remedy", "also"} == set(document["findings"][0])


def test_the_command_refuses_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    assert "not a GGUF file" in refusal("doctor", tmp_path / "text.gguf", within=tmp_path)
    assert "has GGUF files (text.gguf) only" in refusal("doctor", tmp_path, within=tmp_path)
    (tmp_path / "text.gguf").unlink()
    assert "config.json" in refusal("doctor", tmp_path, within=tmp_path)


def test_several_at_once(small: Path, bf16_gguf: Path, tmp_path: Path) -> None:
    """As pre-commit calls it: every one is examined, and a single fault is enough."""
    (tmp_path / "bad.gguf").write_bytes(bf16_gguf.read_bytes()[:-4096])
    assert run("doctor", small, bf16_gguf).code == 0
    assert len(json.loads(run("doctor", small, bf16_gguf, "--json").out)) == 2
    assert run("doctor", bf16_gguf, tmp_path / "bad.gguf").code != 0
