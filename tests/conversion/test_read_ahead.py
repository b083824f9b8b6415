"""What a conversion reads next is on its way from the disk while the cores are busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lfm2gguf
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.conversion import Part
from lfm2gguf.conversion.tasks import AHEAD, Task, read_ahead


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Rows that the system was asked to begin to read, as they were asked for."""
    found: list[tuple[str, int, int]] = []
    expect = Part.expect

    def noted(part: Part, start: int, stop: int) -> None:
        found.append((part.origin, start, stop))
        expect(part, start, stop)

    monkeypatch.setattr(Part, "expect", noted)
    return found


def test_tasks_come_in_order_and_no_sooner_than_what_they_read(
    wide: Path, asked: list[tuple[str, int, int]]
) -> None:
    [draft] = lfm2gguf.plan(wide, type="F32").drafts
    part = draft.sources[0].parts[0]
    tasks = [Task("t", part, row, row + 1, ()) for row in range(AHEAD + 5)]
    for i, task in enumerate(read_ahead(iter(tasks))):
        assert task is tasks[i]
        assert len(asked) == min(i + 1 + AHEAD, len(tasks))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_row_is_asked_for_before_it_is_read(
    jobs: int, wide: Path, tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Part.stored

    def read(part: Part, start: int, stop: int) -> Any:
        assert any(o == part.origin and a <= start and stop <= b for o, a, b in asked)
        return stored(part, start, stop)

    monkeypatch.setattr(Part, "stored", read)
    monkeypatch.setattr("lfm2gguf.conversion.write.WEIGHTS_PER_WORKER", 1)
    lfm2gguf.convert(wide, tmp_path / "a.gguf", "Q8_0", jobs=jobs)
    assert {origin for origin, _, _ in asked} == set(Checkpoint.open(wide).tensors)
