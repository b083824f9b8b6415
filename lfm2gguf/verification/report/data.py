"""A verification as plain data: what JSON reports and baselines hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lfm2gguf import rendering
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification

REPORT_VERSION = 1  # of report.schema.json


def to_json(results: Sequence[Verification]) -> dict[str, Any]:
    """Return one report over any number of files; NaN and infinity become null."""
    report = {
        "report": "lfm2gguf verify",
        "version": REPORT_VERSION,
        "passed": all(result.passed for result in results),
        "files": [_file(result) for result in results],
    }
    cleaned: dict[str, Any] = rendering.plain(report)
    return cleaned


def dumps(results: Sequence[Verification]) -> str:
    """Return the JSON text of a report."""
    return rendering.dumps(to_json(results), indent=2)


def _file(result: Verification) -> dict[str, Any]:
    return {
        "file": result.candidate,
        "type": result.type,
        "bytes": result.size,
        "weights": result.weights,
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
