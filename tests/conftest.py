"""Checkpoints and files that many tests read; each is made once."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lfm2gguf import convert
from tests.making.browser import chromium
from tests.making.checkpoints import CASES, Case, config, make

# A first load in a process of its own: hundreds of small files would take minutes. Its own tests
# turn it on (tests/loadable).
os.environ["LFM2GGUF_TRIAL"] = "0"
# NumPy's kernels are the specification, and compiling the others takes half a minute. Those are
# held to these in tests/quants/test_compiled.py and tests/conversion/test_compiled.py.
os.environ.setdefault("LFM2GGUF_KERNELS", "numpy")
# A busy machine takes longer than the 200 ms that an example may take by default. The examples are
# the same in every run; --hypothesis-profile=others draws others.
settings.register_profile(
    "others", deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("same", settings.get_profile("others"), derandomize=True, database=None)
settings.load_profile("same")
# Of tests/fuzz, the same in all processes: another one in every run that is given time for it.
OWN_SEED = secrets.randbelow(2**32) if "LFM2GGUF_FUZZ_SECONDS" in os.environ else 1
FUZZ_SEED = os.environ.setdefault("LFM2GGUF_FUZZ_SEED", str(OWN_SEED))

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny-lfm2"


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("weekly"):
            item.add_marker(pytest.mark.slow)


def pytest_report_header() -> str:
    return f"fuzz: LFM2GGUF_FUZZ_SEED={FUZZ_SEED}"


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens on import and leaves open: a warning at Python's end."""
    if utilities := sys.modules.get("llama_cpp._utils"):
        utilities.outnull_file.close()
        utilities.errnull_file.close()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's own cache out of the tests, and what other runs have left there."""
    os.environ["LFM2GGUF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint of a few thousand weights; not to be changed."""
    return make(Case(config()), tmp_path_factory.mktemp("small") / "LFM2-Small")


@pytest.fixture
def checkpoint(small: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(small, tmp_path / small.name))


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with rows of 256, so that the K-quants apply; not to be changed."""
    name = "LFM2-rows-of-256"
    return make(CASES[name], tmp_path_factory.mktemp("wide") / name)


@pytest.fixture(scope="session")
def bf16_gguf(wide: Path) -> Path:
    """It as a BF16 GGUF; not to be changed."""
    return convert(wide, wide.with_suffix(".gguf"), "BF16").files[0].path


@pytest.fixture(scope="session")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example model as GGUF files, by type; not to be changed."""
    folder = tmp_path_factory.mktemp("example")
    files = convert(EXAMPLE, folder, ["BF16", "Q8_0", "Q4_K_M"]).files
    return {file.type: file.path for file in files}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium. Of a module: while it runs, asyncio.run cannot."""
    with chromium() as found:
        yield found
