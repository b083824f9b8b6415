"""The binding, against the real library and the example model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.errors import ContextError, GGUFError, OptionError, RuntimeFailureError
from lfm2gguf.llamacpp import (
    Chunk,
    Context,
    Model,
    Sampler,
    backends,
    build_info,
    devices,
    json_schema_grammar,
)
from lfm2gguf.options import Options
from tests.making.models import tiny_gguf

GREEDY: dict[str, Any] = {
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "repeat_window": 0,
    "seed": 0,
}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with Context(model, n_ctx=512, n_seq_max=4, threads=1, unified=True) as made:
        yield made


def test_importing_loads_no_library() -> None:
    code = "import sys, lfm2gguf.llamacpp; sys.exit('llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cpu_is_a_backend_and_a_device() -> None:
    assert "CPU" in backends()
    cpu = next(device for device in devices() if device.kind == "cpu")
    assert cpu.backend == "CPU"
    assert cpu.memory_total > 0
    assert set(build_info()) == {"llama_cpp_python", "llama.cpp", "system"}


def test_a_model_on_the_cpu_says_so(model: Model) -> None:
    assert model.offloaded == 0
    assert model.metadata["general.architecture"] == "lfm2"


INTERRUPTED = """
import os, signal, sys
from lfm2gguf.llamacpp import Model
from lfm2gguf.llamacpp.huge_pages import HugePages
HugePages.ask = lambda self: os.kill(os.getpid(), signal.SIGINT)  # called during a load
try:
    Model(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_a_load_can_be_interrupted() -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_load_reports_to_who_listens(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    assert model.buffers == {}
    with caplog.at_level("DEBUG", "lfm2gguf.llamacpp"), Model(tiny_gguf()) as heard:
        assert heard.buffers
        assert all(name.startswith("CPU") for name in heard.buffers)
    assert "token to piece cache" in caplog.text


@pytest.mark.parametrize(
    "text", ["plain", "naïve 日本語 🙂 مرحبا", "<|im_start|>user\nHi<|im_end|>\n"]
)
def test_tokens_and_text_are_each_others_inverse(model: Model, text: str) -> None:
    tokens = model.tokenize(text)
    assert model.detokenize(tokens, special=True) == text
    assert b"".join(model.piece(token, special=True) for token in tokens) == text.encode()


def test_bos_only_when_asked(model: Model) -> None:
    assert model.tokenize("Hi", bos=True) == [model.bos, *model.tokenize("Hi")]


def test_outputs_come_in_chunk_order(model: Model, context: Context) -> None:
    tokens = model.tokenize("The worm has 302 neurons and 959 cells.")
    context.decode([Chunk(0, 0, tokens, outputs=len(tokens))])
    alone = context.logits().copy()
    assert alone.shape == (len(tokens), model.n_vocab)
    context.decode([Chunk(1, 0, tokens[:3], outputs=3), Chunk(2, 0, tokens, outputs=2)])
    together = context.logits()
    np.testing.assert_allclose(together[:3], alone[:3], atol=2e-2)
    np.testing.assert_allclose(together[3:], alone[-2:], atol=2e-2)


def test_a_partial_state_goes_back_where_removal_alone_cannot(
    model: Model, context: Context
) -> None:
    tokens = model.tokenize("A hybrid model keeps a state that cannot be cut.")
    context.decode([Chunk(0, 0, tokens)])
    state = context.save_state(0, partial=True)
    context.decode([Chunk(0, len(tokens), [5, 6, 7], outputs=1)])
    first = context.logits().copy()
    assert not context.remove(0, len(tokens))
    context.load_state(0, state, partial=True)
    assert context.remove(0, len(tokens))
    assert context.length(0) == len(tokens)
    context.decode([Chunk(0, len(tokens), [5, 6, 7], outputs=1)])
    np.testing.assert_array_equal(context.logits(), first)


def test_a_prefix_is_shared_without_a_copy_of_the_state(model: Model, context: Context) -> None:
    tokens = model.tokenize("A shared beginning, read once.")
    context.decode([Chunk(0, 0, tokens)])
    state = context.save_state(0, partial=True)
    context.decode([Chunk(0, len(tokens), [5, 6, 7], outputs=1)])
    expected = context.logits().copy()
    context.copy(0, 1, stop=len(tokens))
    context.load_state(1, state, partial=True)
    context.decode([Chunk(1, len(tokens), [5, 6, 7], outputs=1)])
    np.testing.assert_allclose(context.logits(), expected, atol=2e-2)
    assert context.length(0) == context.length(1) == len(tokens) + 3


def test_what_c_would_assert_is_refused_before(model: Model, context: Context) -> None:
    with pytest.raises(OptionError, match="1 to 512 tokens"):
        context.decode([Chunk(0, 0, [5] * 513)])
    with pytest.raises(OptionError, match="1 to 512 tokens"):
        context.decode([])
    with pytest.raises(RuntimeFailureError, match="out of range"):
        context.decode([Chunk(0, 0, [model.n_vocab])])
    context.decode([Chunk(0, 0, [5] * 400)])
    with pytest.raises(ContextError, match="full"):
        context.decode([Chunk(1, 0, [5] * 400)])
    with pytest.raises(RuntimeFailureError, match="does not fit"):
        context.load_state(0, b"\0" * 64)


def test_greedy_picks_the_largest_logit(model: Model) -> None:
    logits = np.random.default_rng(0).normal(size=model.n_vocab).astype(np.float32)
    sampler = Sampler(model, Options(**GREEDY))
    assert sampler.sample(logits) == int(logits.argmax())
    sampler.close()


def test_bias_and_penalty_move_the_choice(model: Model) -> None:
    logits = np.zeros(model.n_vocab, np.float32)
    logits[[40, 41]] = 5.0, 4.9
    biased = Sampler(model, Options(**{**GREEDY, "logit_bias": {41: 1.0}}))
    assert biased.sample(logits) == 41
    options = {**GREEDY, "repeat_penalty": 1.1, "repeat_window": 4}
    penalized = Sampler(model, Options(**options))
    penalized.see([40])
    assert penalized.sample(logits) == 41
    for sampler in (biased, penalized):
        sampler.close()


def test_the_seed_decides(model: Model) -> None:
    logits = np.random.default_rng(1).normal(size=model.n_vocab).astype(np.float32)

    def draw(seed: int) -> list[int]:
        sampler = Sampler(model, Options(**{**GREEDY, "temperature": 1.0, "seed": seed}))
        return [sampler.sample(logits) for _ in range(8)]

    assert draw(7) == draw(7) != draw(8)


def test_a_grammar_holds_against_the_largest_logit(model: Model) -> None:
    logits = np.zeros(model.n_vocab, np.float32)
    logits[model.tokenize("no")[0]] = 9.0
    sampler = Sampler(model, Options(**GREEDY, grammar='root ::= "yes"'))
    tokens: list[int] = []
    while not tokens or not model.ends_generation(tokens[-1]):
        tokens.append(sampler.sample(logits))
    assert model.detokenize(tokens) == "yes"


def test_nothing_left_to_pick_is_an_error_and_no_abort(model: Model) -> None:
    bias = dict.fromkeys(range(model.n_vocab), -np.inf)
    sampler = Sampler(model, Options(**GREEDY, logit_bias=bias, grammar='root ::= "a"'))
    with pytest.raises(RuntimeFailureError, match="no token"):
        sampler.sample(np.zeros(model.n_vocab, np.float32))


def test_grammars_that_do_not_parse_are_refused(model: Model) -> None:
    with pytest.raises(OptionError, match="does not parse"):
        Sampler(model, Options(**GREEDY, grammar="root ::= ("))
    with pytest.raises(OptionError, match="schema"):
        json_schema_grammar({"type": "nonsense"})


def test_a_file_that_is_no_model_gives_c_s_reason(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a gguf at all")
    with pytest.raises(GGUFError, match=r"bad\.gguf.*magic"):
        Model(bad)
