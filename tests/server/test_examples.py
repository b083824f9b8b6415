"""The Python of examples/serving is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lfm2gguf import Runner

PAGE = Path(__file__).parents[2] / "examples" / "serving" / "README.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL).findall(
    PAGE.read_text("utf-8")
)


def test_all_are_found() -> None:
    assert len(CODE) == 2


@pytest.mark.parametrize("code", CODE)
def test_an_example(
    code: str, url: str, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"URL": f"{url}/v1", "MODEL_NAME": "tiny", "MODEL": runner.path}
    exec(compile(code, "example", "exec"), names)
    assert capsys.readouterr().out.strip()
