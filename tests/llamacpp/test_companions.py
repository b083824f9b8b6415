"""Libraries that a build needs beside itself: found in packages, or said to be missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm2gguf.llamacpp.backend import library_help
from tests.making.native import build, needs_compiler

LOAD = """
import ctypes, sys
from lfm2gguf.llamacpp.companions import load_companions
if sys.argv[2] == "with": load_companions()
print(ctypes.CDLL(sys.argv[1]).of_cublas())
"""
LOADS = """
def llama_log_callback(function): return function
def llama_log_set(*given): pass
def llama_backend_init(): pass
"""


@needs_compiler
@pytest.mark.parametrize("layout", ["cublas", "cu77"])  # up to CUDA 12, and after it
def test_cuda_s_libraries_are_taken_from_packages(layout: str, tmp_path: Path) -> None:
    libraries, ours = tmp_path / "nvidia" / layout / "lib", tmp_path / "llama_cpp" / "lib"
    for folder in (libraries, ours):
        folder.mkdir(parents=True)
    (ours.parent / "__init__.py").touch()  # it comes before the installed one
    build(libraries / "libcudart.so.77", "int of_runtime(void) { return 7; }")
    build(
        libraries / "libcublas.so.77",
        "int of_runtime(void); int of_cublas_(void) { return of_runtime(); }",
        libraries / "libcudart.so.77",
    )
    source = "int of_cublas_(void); int of_cublas(void) { return of_cublas_(); }"
    backend = ours / "libggml-cuda.so"
    build(backend, source, libraries / "libcublas.so.77", libraries / "libcudart.so.77")

    def load(how: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}){LOAD}"
        return subprocess.run(
            [sys.executable, "-c", code, backend, how], capture_output=True, text=True, check=False
        )

    assert load("with").stdout == "7\n"
    assert "libcublas.so.77: cannot open" in load("without").stderr


@pytest.mark.parametrize(
    ("library", "help_"),
    [
        ("libcuda.so.1", "NVIDIA's driver"),
        ("libcudart.so.12", "CUDA's runtime"),
        ("libcublasLt.so.13", "CUDA's runtime"),
        ("libamdhip64.so.7", "install ROCm"),
        ("libvulkan.so.1", "libvulkan1"),
        ("libsycl.so.8", "setvars.sh"),
    ],
)
def test_a_build_says_which_library_the_machine_lacks(library: str, help_: str) -> None:
    said = f"{library}: cannot open shared object file: No such file or directory"
    assert help_ in library_help(said)
    assert library_help("libllama.so: invalid ELF header") == ""


@pytest.mark.parametrize("module", ["llama_cpp", "_ggml"])
def test_a_library_that_does_not_load_is_one_line(module: str, tmp_path: Path) -> None:
    """Each of the package's modules loads a library of its own when it is imported."""
    package = tmp_path / "llama_cpp"
    package.mkdir()
    names = {"__init__": "", "_ggml": "libggml = None", "llama_cpp": LOADS}
    for name, text in names.items():
        broken = "raise FileNotFoundError('libhipblas.so.2: cannot open')"
        (package / f"{name}.py").write_text(broken if name == module else text)
    code = "from lfm2gguf.llamacpp.device import libggml; libggml()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError: llama-cpp-python is installed but" in last
    assert "libhipblas.so.2" in last
    assert "built for ROCm" in last
