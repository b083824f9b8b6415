"""What the package offers, what importing it costs, and what its commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lfm2gguf
import lfm2gguf_cli
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import Lfm2ggufError, OptionError
from lfm2gguf.verification import Material
from lfm2gguf_cli.main import COMMANDS, make_app
from tests.cli.command import COMMAND, run

HEAVY = {
    "numpy", "gguf", "llama_cpp", "huggingface_hub", "torch", "transformers", "yaml", "numba",
    "rich", "asyncio",
}  # fmt: skip


def test_the_names_are_these() -> None:
    assert lfm2gguf.__all__ == sorted(lfm2gguf.__all__)
    assert lfm2gguf.__all__ == [
        "Allocation",
        "Budget",
        "Calibrated",
        "Conversion",
        "ConvertedAdapter",
        "Diagnosis",
        "FileType",
        "Finding",
        "GGMLType",
        "GGUFFile",
        "Lfm2ggufError",
        "Progress",
        "Publication",
        "Reply",
        "Runner",
        "Severity",
        "ToolCall",
        "Verification",
        "WrittenFile",
        "__version__",
        "allocate",
        "benchmark",
        "calibrate",
        "collect_imatrix",
        "convert",
        "convert_lora",
        "diagnose",
        "plan",
        "plan_publication",
        "progress_bar",
        "publish",
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


STARTED = "subprocess.Popen"  # its audit event, among the names of modules
MODULES = (
    "import atexit, sys; before, events = set(sys.modules), set(); "
    f"sys.addaudithook(lambda event, _: events.update({{{STARTED!r}}} & {{event}})); "
    "atexit.register(lambda: print('\\n', *set(sys.modules) - before | events)); "
)


def imported(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", MODULES + code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def command_line(*arguments: str) -> set[str]:
    return imported(f"sys.argv[1:] = {arguments}; from lfm2gguf_cli.main import main; main()")


def test_importing_the_package_loads_a_handful_of_modules() -> None:
    found = imported("import lfm2gguf")
    assert not HEAVY & found
    assert {name for name in found if name.startswith("lfm2gguf")} == {
        "lfm2gguf",
        "lfm2gguf.errors",
        "lfm2gguf.version",
    }


def test_help_loads_typer_and_nothing_else() -> None:
    """What starts is counted, since milliseconds depend on the machine."""
    typer_alone = imported("import typer.main")
    for argument in ("--help", "--version"):
        found = command_line(argument)
        assert not (HEAVY | {"importlib.metadata", "pydantic"}) & found
        assert len(found - typer_alone) < 40, sorted(found - typer_alone)
        assert {name for name in found if name.startswith("lfm2gguf_cli")} == {
            "lfm2gguf_cli",
            "lfm2gguf_cli.main",
            "lfm2gguf_cli.nearest",
            "lfm2gguf_cli.plain",
            "lfm2gguf_cli.signals",
        }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_loads_that_command(command: str) -> None:
    found = command_line(command, "--help")
    assert not (HEAVY | {"importlib.metadata", "pydantic"}) & found
    assert len(found) < 170, sorted(found)
    others = {f"lfm2gguf_cli.{name.replace('-', '_')}" for name in COMMANDS if name != command}
    assert not others & found


def test_the_examples_conversion_loads_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file this small is written in this process, and waits for no package that does not help."""
    monkeypatch.delenv("LFM2GGUF_KERNELS")  # for its size numba does not pay where it is installed
    example = Path(__file__).parents[1] / "examples" / "tiny-lfm2"
    target = tmp_path / "x.gguf"
    found = command_line("convert", str(example), "-t", "Q4_K_M", "-o", str(target))
    assert target.is_file()
    assert "lfm2gguf.conversion.write" in found
    needed = imported("import gguf, typer.main, rich.console, lfm2gguf_cli.convert")
    more = {name for name in found - needed if not name.startswith("lfm2gguf")}
    assert not (HEAVY - {"numpy", "gguf", "yaml", "rich"}) & found
    assert not {"pydantic", "ssl", "http", "urllib.request", "importlib.metadata"} & found
    assert not {"multiprocessing", "concurrent.futures.process", STARTED} & found
    assert len(more) < 30, sorted(more)
    packages = {"verification", "allocation", "calibration", "llamacpp", "reference", "chat"}
    assert not {f"lfm2gguf.{name}" for name in packages} & found
    assert not {"lfm2gguf.options", "lfm2gguf_cli.running"} & found


def test_the_list_of_commands_is_complete() -> None:
    """A command is the function of its module's name."""
    folder = Path(lfm2gguf_cli.__file__).parent
    assert all((folder / f"{name.replace('-', '_')}.py").is_file() for name in COMMANDS)
    for name in COMMANDS:
        [called] = [c for c in make_app([name]).registered_commands if c.name == name]
        assert called.callback is not None
        assert called.callback.__module__ == f"lfm2gguf_cli.{name.replace('-', '_')}"
    assert all(len(summary) < 60 for summary in COMMANDS.values())


def test_a_process_of_its_own() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lfm2gguf {lfm2gguf.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"Example: lfm2gguf {command}" in result.out


def test_no_command_shows_the_commands() -> None:
    for result in (run("--help"), run()):
        assert all(command in result.out + result.err for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["convrt"], ["convert"], ["convert", "x", "--nonsense"]])
def test_usage(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage" in result.err


def test_one_is_as_good_as_several_and_several_may_be_any_iterable(small: Path) -> None:
    names = ["Q8_0", "BF16"]
    wanted = repr(lfm2gguf.plan(small, type=names))
    for given in (",".join(names), iter(names), (n for n in names), dict.fromkeys(names).keys()):
        assert repr(lfm2gguf.plan(small, type=given)) == wanted
    recipe = Recipe(iter(["Q8_0"]), tensor_type="ffn_down=F16")
    assert lfm2gguf.plan(small, type=recipe).drafts[0].type_counts["F16"]
    assert Material("a.txt").texts == Material(iter(["a.txt"])).texts == ("a.txt",)


def test_nothing_at_all_is_no_success(small: Path) -> None:
    with pytest.raises(OptionError, match="none is given"):
        lfm2gguf.verify([], small)
    with pytest.raises(OptionError, match="none is given"):
        lfm2gguf.plan(small, type=[])
    with pytest.raises(OptionError, match="unknown type 8"):
        lfm2gguf.plan(small, type=[8])  # type: ignore[list-item]
