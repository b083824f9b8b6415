"""Two seconds of hostile inputs for each area, the same in every run.

``LFM2GGUF_FUZZ_SECONDS`` gives each area longer, and other inputs in every run; the seed is in its
head, and ``LFM2GGUF_FUZZ_SEED`` repeats it. What a campaign finds is in the failure, with the
command that shows it again.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import AREAS, run

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("fastapi", reason="lfm2gguf[serve] is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the worker is bounded by POSIX's limits"),
]

SECONDS = float(os.environ.get("LFM2GGUF_FUZZ_SECONDS", "2"))
SEED = int(os.environ["LFM2GGUF_FUZZ_SEED"])  # tests/conftest.py


@pytest.mark.fuzz
@pytest.mark.parametrize("area", AREAS)
def test_nothing_is_found(area: str) -> None:
    found = run(area, SEED, SECONDS)
    assert found.inputs
    assert not found.faults, str(found)


def test_every_kind_of_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "HANG", 3.0)
    monkeypatch.setattr(campaign, "ASLEEP", 15.0)  # what is no hang takes some, on a busy machine
    found = run("planted", 1, 600, count=20)
    told = {fault.what for fault in found.faults.values() if fault.kind == "wrong"}
    assert {fault.kind for fault in found.faults.values()} == set(campaign.FAULTS), str(found)
    assert {"told by the area", "left behind: x.partial"} < told
    assert any("refuses in several lines" in what for what in told), str(found)
    assert {"ok", "refused"} < set(found.kinds)
    asleep, busy = found.labels["hang"], found.labels["loop"]
    assert asleep
    assert busy
    assert found.kinds["hang"] == asleep + busy
    assert "TypeError in json_text.py, line" in str(found)
    assert "python -m tests.fuzz planted --seed 1 --one" in str(found)
