"""How ``lfm2gguf serve`` starts: the server is imported while the model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import refusal
from tests.making.models import tiny_gguf

OPENED = """
import sys
from lfm2gguf import runner
from lfm2gguf.llamacpp import devices
devices()
before = set(sys.modules)
runner.Runner(sys.argv[1], device="cpu").close()
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_a_load_imports_nothing_that_a_server_may_be_importing() -> None:
    """Two threads that import packages with modules in common may wait for each other."""
    command = [sys.executable, "-c", OPENED, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) - sys.stdlib_module_names


@pytest.mark.parametrize("name", ["fastapi", "prometheus_client", "uvicorn"])
def test_what_is_missing_is_said_before_the_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = refusal("serve", tmp_path / "absent.gguf", "--port", "0", within=tmp_path)
    assert f"{name} is needed to serve a model: pip install" in said
