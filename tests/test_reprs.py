"""How results show themselves: short in a shell, as a table in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lfm2gguf
from lfm2gguf.doctor import describe
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.gguf_file import ValueType
from tests.bench.test_reports import made

LONGEST = 200  # characters, but for paths


def test_results_of_a_conversion(small: Path, tmp_path: Path) -> None:
    plan = lfm2gguf.plan(small, tmp_path, ["Q8_0", "F16"])
    written = plan.write(jobs=1)
    path = written.files[0].path
    shown: dict[str, Any] = {
        f"ConversionPlan({path}: ": plan,
        f"Conversion(WrittenFile('{path}': Q8_0, ": written,
        f"GGUFFile('{path}': lfm2, ": lfm2gguf.GGUFFile.open(path),
        f"Diagnosis('{path}': 0 errors, ": lfm2gguf.diagnose(path),
        f"Description('{path}': ": describe(path),
    }
    for start, value in shown.items():
        assert repr(value).startswith(start)
        assert len(repr(value).replace(str(tmp_path), "")) < LONGEST
    assert written._repr_html_().count("<tr>") == plan._repr_html_().count("<tr>") == 3
    assert "<td" in describe(path)._repr_html_()
    assert lfm2gguf.diagnose(path)._repr_html_().startswith("<p>Diagnosis(")


def test_a_benchmark() -> None:
    assert repr(made()).startswith("Report(A.gguf, machine: ")
    assert made()._repr_html_().count("<tr>") > 2


def test_names_of_types() -> None:
    assert repr([GGMLType.Q4_K, FileType.Q4_K_M]) == "[GGMLType.Q4_K, FileType.Q4_K_M]"
    assert repr(ValueType.UINT32) == "ValueType.UINT32"
