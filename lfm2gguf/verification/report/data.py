"""A verification as plain data: what JSON reports and baselines hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lfm2gguf.errors import OutputError
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification

REPORT_VERSION = 1  # of report.schema.json


def to_json(results: Sequence[Verification]) -> dict[str, Any]:
    """Give one report over any number of files; NaN and infinity become null."""
    report = {
        "report": "lfm2gguf verify",
        "version": REPORT_VERSION,
        "passed": all(result.passed for result in results),
        "files": [_file(result) for result in results],
    }
    cleaned: dict[str, Any] = _finite(report)
    return cleaned


def dumps(results: Sequence[Verification]) -> str:
    """Give the JSON text of a report."""
    return json.dumps(to_json(results), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_report(path: Path, content: str | bytes) -> None:
    """Write a report, whole or not at all. Raises OutputError if the place cannot be written."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error


def _file(result: Verification) -> dict[str, Any]:
    return {
        "file": result.candidate,
        "type": result.type,
        "bytes": result.size,
        "passed": result.passed,
        "culprit": result.culprit or None,
        "reference": {
            "name": result.reference,
            "digest": result.reference_digest,
            "tokenizer": result.tokenizer,
            "cached": result.reference_cached,
        },
        "texts": [dict(text) for text in result.texts],
        "ctx": result.ctx,
        "engine": result.engine,
        "device": result.device,
        "gates": [_gate(gate) for gate in result.gates],
        "stages": {name: asdict(figures) for name, figures in result.stages.items()},
        "tensors": [asdict(tensor) for tensor in result.tensors],
        "deltas": [asdict(delta) for delta in result.deltas],
        "seconds": dict(result.seconds),
        "versions": dict(result.versions),
    }


def _gate(gate: Gate) -> dict[str, Any]:
    data = {**asdict(gate), "name": gate.title, "margin": gate.margin, "passed": gate.passed}
    del data["stage"]  # the title says it
    return data


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
