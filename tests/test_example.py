"""The model in the repository: converted, loaded by llama.cpp, and saying what it should.

The golden values are transformers' own (golden/make_tiny_transformers.py).
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden/tiny_transformers.json").read_text("utf-8"))
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def load(path: Path, **options: Any) -> Any:
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False, **options)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def greedy(path: Path, ids: list[int], n: int) -> list[int]:
    tokens = load(path).generate(ids, temp=0.0, repeat_penalty=1.0)
    return list(itertools.islice(tokens, n))


@pytest.mark.parametrize("case", GOLDEN["greedy"], ids=lambda case: case["prompt"])
def test_bf16_continues_as_transformers_does(example_files: dict[str, Path], case: Any) -> None:
    assert greedy(example_files["BF16"], case["prompt_ids"], len(case["ids"])) == case["ids"]


# Mean KL divergence from transformers' float32, in nats: some times what was seen when the
# model was made (BF16 0.00003, Q8_0 0.0005, Q4_K_M 0.014).
KL_BOUNDS = {"BF16": 0.0003, "Q8_0": 0.005, "Q4_K_M": 0.1}


@pytest.mark.parametrize("type", KL_BOUNDS)
def test_every_type_predicts_what_transformers_does(
    example_files: dict[str, Path], type: str
) -> None:
    with np.load(HERE / "golden/tiny_transformers.npz") as golden:
        positions, expected = golden["positions"], log_softmax(golden["logits"])
    model = load(example_files[type], logits_all=True)
    model.eval(GOLDEN["logits"]["ids"])
    found = log_softmax(np.array(model.scores)[positions])
    divergence = (np.exp(expected) * (expected - found)).sum(axis=-1).mean()
    assert divergence < KL_BOUNDS[type]


@pytest.mark.parametrize("type", KL_BOUNDS)
def test_every_type_generates(example_files: dict[str, Path], type: str) -> None:
    case = GOLDEN["greedy"][0]
    tokens = greedy(example_files[type], case["prompt_ids"], 24)
    assert len(tokens) == 24
    assert tokens[0] == case["ids"][0]
    assert load(example_files[type]).detokenize(tokens).decode().strip()


def test_a_prompt_of_text(example_files: dict[str, Path]) -> None:
    case = GOLDEN["greedy"][0]
    prompt, n = case["prompt"], len(case["ids"])
    answer = load(example_files["BF16"])(prompt, max_tokens=n, temperature=0.0)
    assert answer["choices"][0]["text"] == case["text"]


def test_text_becomes_the_same_tokens(example_files: dict[str, Path]) -> None:
    """llama.cpp splits and merges as the tokenizer of the checkpoint does."""
    model = load(example_files["BF16"])
    for case in GOLDEN["encodings"]:
        ids = model.tokenize(case["text"].encode(), add_bos=False, special=True)
        assert ids == case["ids"], case["text"]


def test_bos_is_added_by_default(example_files: dict[str, Path]) -> None:
    case = GOLDEN["greedy"][0]
    assert load(example_files["BF16"]).tokenize(case["prompt"].encode()) == case["prompt_ids"]
