"""The comparison of devices: sound on the CPU itself, and it finds what is wrong.

With a GPU, and a llama-cpp-python that is built for it, it is run there, too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lfm2gguf import convert
from lfm2gguf.llamacpp import Floats, devices
from lfm2gguf.llamacpp.selection import use_name
from tests.gpu import check as checking
from tests.gpu.check import EXAMPLE, Found, answers, check, compare, compare_logits, logits
from tests.gpu.shapes import make_shapes

GPU = next((use_name(d.backend) for d in devices() if d.kind in ("gpu", "igpu")), "")


@pytest.mark.slow
def test_the_cpu_is_as_the_cpu(example_files: dict[str, Path]) -> None:
    found = check(example_files["Q8_0"], "cpu", EXAMPLE)
    assert found.problems == []
    assert found.equal_texts == found.texts == 8  # one at a time, and four at once
    assert set(found.kld) == {"cpu"}
    assert found.logits_difference == 0
    assert found.weights == {}  # on the CPU alone nobody listens to what a load reports


def test_what_is_wrong_is_found(example_files: dict[str, Path]) -> None:
    _, replies = answers(example_files["Q8_0"], "cpu")
    first = replies[0]
    assert first.logprobs
    other = replace(first.logprobs[0], token=first.logprobs[0].token + 1, text="wrong")
    wrong = replace(first, text="wrong", logprobs=(other, *first.logprobs[1:]))
    found = Found("file")
    compare(found, "here", replies, [wrong, *replies[1:]])
    sure = first.logprobs[0].top[0][1] - first.logprobs[0].top[1][1] > 0.1
    assert (found.equal_texts, found.texts) == (3, 4)
    assert bool(found.problems) == sure
    shifted = replace(first.logprobs[0], logprob=first.logprobs[0].logprob - 0.5)
    compare(found, "here", replies[:1], [replace(first, logprobs=(shifted,))])
    assert found.largest_logprob_difference == pytest.approx(0.5)


def test_other_logits_and_weights_that_stayed_are_found(
    example_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, weights = logits(example_files["Q8_0"], "cpu")
    assert len(expected) == checking.TOKENS

    scales = {"cpu": 1.0}

    def on_a_device(path: Path, device: str) -> tuple[Floats, dict[str, int]]:
        return expected * scales[device], weights

    monkeypatch.setattr(checking, "logits", on_a_device)
    monkeypatch.setattr(checking, "choose", lambda device: [device])
    for scale, problems in ((1.04, 1), (1.06, 2), (float("nan"), 2)):
        scales["cuda"] = scale
        found = Found("file")
        compare_logits(found, example_files["Q8_0"], "cuda")
        assert len(found.problems) == problems
        assert "main memory" in found.problems[-1]


@pytest.mark.weekly
def test_models_of_true_widths(tmp_path: Path) -> None:
    for checkpoint in make_shapes(tmp_path):
        (file,) = convert(checkpoint, tmp_path / f"{checkpoint.name}.gguf", "Q8_0").files
        found = Found(file.path.name)
        compare_logits(found, file.path, "cpu")
        assert (found.problems, found.logits_difference) == ([], 0)


@pytest.mark.slow
@pytest.mark.skipif(not GPU, reason="no GPU, or a llama-cpp-python that is built without it")
def test_the_gpu_is_as_the_cpu(example_files: dict[str, Path]) -> None:
    for path in example_files.values():
        assert check(path, GPU, EXAMPLE).problems == []
