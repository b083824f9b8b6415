"""What the doctor says of llama.cpp, asked of llama.cpp itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import convert
from lfm2gguf.doctor.runtime import NOT_WEIGHTS
from lfm2gguf.ggml import GGMLType
from tests.doctor.operations import Change, rewrite
from tests.doctor.test_gguf import HEALTHY, MIXTURE, PLANTED, types

REFUSED = (
    "feed-forward width", "old norm name", "no norm", "fewer tokens than rows", "no matrix",
    "no key norm", "unknown tensor", "a layer more", "other heads", "other KV heads",
    "KV heads of more layers", "other kernel", "no kernel", "no epsilon", "width as text",
)  # fmt: skip
ABORTS = {"no experts", "more used than there are"}  # GGML_ASSERT: the process ends
PROMPT = "<|startoftext|><|im_start|>"


@pytest.fixture(scope="module")
def sound(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    path = convert(small, folder / "plain.gguf", "F16", jobs=1).files[0].path
    return rewrite(path, folder / "sound.gguf", HEALTHY)


@contextmanager
def loaded(path: Path, vocab_only: bool = False) -> Iterator[tuple[Any, Any]]:
    """llama.cpp's bindings and the model, which is None where it is refused."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers, options.vocab_only = 0, vocab_only
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    try:
        yield llama_cpp, model
    finally:
        if model:
            llama_cpp.llama_model_free(model)
        llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), None)


def tokens(path: Path, text: str, *, add: bool) -> list[int]:
    with loaded(path, vocab_only=True) as (api, model):
        data, buffer = text.encode(), (api.llama_token * 64)()
        vocabulary = api.llama_model_get_vocab(model)
        n = api.llama_tokenize(vocabulary, data, len(data), buffer, 64, add, True)
        return buffer[:n]


def test_a_sound_file_loads(sound: Path) -> None:
    with loaded(sound) as (_, model):
        assert model


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses(name: str, sound: Path, tmp_path: Path) -> None:
    with loaded(rewrite(sound, tmp_path / "planted.gguf", PLANTED[name][0])) as (_, model):
        assert not model


@pytest.mark.parametrize("name", sorted(set(MIXTURE) - ABORTS))
def test_what_it_refuses_of_a_mixture(name: str, mixture: Path, tmp_path: Path) -> None:
    with loaded(rewrite(mixture, tmp_path / "planted.gguf", MIXTURE[name][0])) as (_, model):
        assert not model


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ABORTS))
def test_what_ends_the_process(name: str, mixture: Path, tmp_path: Path) -> None:
    assert aborts(rewrite(mixture, tmp_path / "planted.gguf", MIXTURE[name][0]))
    assert not aborts(mixture)


def test_a_token_twice_ends_the_process(sound: Path, tmp_path: Path) -> None:
    assert aborts(rewrite(sound, tmp_path / "planted.gguf", PLANTED["a token twice"][0]))


def aborts(path: Path) -> bool:
    """Whether loading a file ends a process of its own by a signal (or Windows' abort)."""
    program = (
        f"import llama_cpp as l; l.llama_model_load_from_file({str(path).encode()!r}, "
        "l.llama_model_default_params())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return result.returncode != 0


def test_a_special_token_of_the_wrong_type(sound: Path, tmp_path: Path) -> None:
    """A normal one is cut to pieces; a user-defined one is found, and printed."""
    normal = rewrite(sound, tmp_path / "normal.gguf", types(t6=1))
    assert tokens(sound, PROMPT, add=False) == [1, 6]
    assert len(tokens(normal, PROMPT, add=False)) > 5
    shown = rewrite(sound, tmp_path / "shown.gguf", types(t6=4))
    assert tokens(shown, PROMPT, add=False) == [1, 6]
    assert (piece(sound, 6), piece(shown, 6)) == (b"", b"<|im_start|>")


def piece(path: Path, id: int) -> bytes:
    """What a runner prints of a token, special ones left out."""
    with loaded(path, vocab_only=True) as (api, model):
        buffer = ctypes.create_string_buffer(64)
        vocabulary = api.llama_model_get_vocab(model)
        n = api.llama_token_to_piece(vocabulary, id, buffer, 64, 0, False)
        return buffer.raw[:n]


@pytest.mark.parametrize("change", [Change(), Change({"tokenizer.ggml.add_bos_token": None})])
def test_bos_is_doubled(change: Change, sound: Path, tmp_path: Path) -> None:
    path = rewrite(sound, tmp_path / "bos.gguf", change)
    assert tokens(path, PROMPT, add=True) == [1, 1, 6]


def test_types_without_a_product_on_the_cpu() -> None:
    """``ggml_get_type_traits_cpu``: a type without ``vec_dot`` cannot be multiplied with."""
    from llama_cpp._ggml import libggml_base_path

    class Traits(ctypes.Structure):  # struct ggml_type_traits_cpu, ggml/include/ggml-cpu.h
        _fields_ = [("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p),
                    ("vec_dot_type", ctypes.c_int), ("nrows", ctypes.c_int64)]  # fmt: skip

    name = next(libggml_base_path.glob("libggml-cpu*.so*"), None)
    if name is None:
        pytest.skip("llama-cpp-python keeps the CPU backend in a library of another name here")
    get = ctypes.CDLL(str(name)).ggml_get_type_traits_cpu
    get.restype, get.argtypes = ctypes.POINTER(Traits), [ctypes.c_int]
    without = {type for type in GGMLType if not get(type.id).contents.vec_dot}
    assert without == NOT_WEIGHTS
