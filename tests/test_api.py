"""What the package offers, what importing it costs, and what its commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf_cli.main import app
from tests.cli.command import COMMAND, run

COMMANDS = sorted(
    command.callback.__name__.replace("_", "-") for command in app.registered_commands
)
HEAVY = {"numpy", "gguf", "llama_cpp", "huggingface_hub", "torch", "transformers", "yaml"}


def test_the_names_are_these() -> None:
    assert lfm2gguf.__all__ == sorted(lfm2gguf.__all__)
    assert lfm2gguf.__all__ == [
        "Conversion",
        "ConvertedAdapter",
        "Diagnosis",
        "FileType",
        "Finding",
        "GGMLType",
        "GGUFFile",
        "Lfm2ggufError",
        "Progress",
        "Reply",
        "Runner",
        "Severity",
        "ToolCall",
        "Verification",
        "WrittenFile",
        "__version__",
        "benchmark",
        "convert",
        "convert_lora",
        "diagnose",
        "plan",
        "quantize",
        "quants",
        "verify",
    ]
    assert all(getattr(lfm2gguf, name) is not None for name in lfm2gguf.__all__)
    assert dir(lfm2gguf) == lfm2gguf.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lfm2gguf.nothing


def test_there_is_one_tree_of_exceptions() -> None:
    found = [e for e in vars(lfm2gguf.errors).values() if isinstance(e, type)]
    assert all(issubclass(error, Lfm2ggufError) and error.__doc__ for error in found)


def test_arrays() -> None:
    x = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(2, 512)
    data = lfm2gguf.quants.quantize(x, "Q4_K")
    assert data.shape == (2, 288)
    assert np.abs(lfm2gguf.quants.dequantize(data, "Q4_K", (2, 512)) - x).max() < 0.05


@pytest.mark.parametrize("code", [
    "import lfm2gguf",
    "import sys; sys.argv[1:] = ['--help']; from lfm2gguf_cli.main import main; main()",
    "import sys; sys.argv[1:] = ['--version']; from lfm2gguf_cli.main import main; main()",
    "import sys; sys.argv[1:] = ['convert', '-h']; from lfm2gguf_cli.main import main; main()",
])  # fmt: skip
def test_what_is_not_needed_is_not_imported(code: str) -> None:
    watch = f"import atexit, sys; atexit.register(lambda: print('\\n', *sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True)
    assert not HEAVY.intersection(done.stdout.splitlines()[-1].split())


def test_a_process_of_its_own() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lfm2gguf {lfm2gguf.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"Example: lfm2gguf {command} " in result.out


def test_no_command_shows_the_commands() -> None:
    for result in (run("--help"), run()):
        assert all(command in result.out + result.err for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["convrt"], ["convert"], ["convert", "x", "--nonsense"]])
def test_usage(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage" in result.err
