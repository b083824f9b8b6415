"""An earlier report to compare with: figures must not have drifted from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.json_text import parse_json
from lfm2gguf.text_file import SMALL, read_text_file
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification

# What changes between builds and machines for one file was seen to stay below a tenth of these.
KLD_DRIFT = 0.10  # of the baseline's value, or the floor
KLD_FLOOR = 2e-5
RATIO_DRIFT = 0.002
TOP1_DRIFT = 0.01
COSINE_DRIFT = 0.10  # of the baseline's distance from 1, or the floor
COSINE_FLOOR = 1e-6
RANK_DRIFT = 0.001


def drift_gates(path: Path, result: Verification) -> list[Gate]:
    """Compare with the entry of the same type in an earlier JSON report.

    Raises:
        OptionError: there is none, or it was measured on something else.

    """
    entry = _entry(path, result.type)
    _require_same_conditions(path, entry, result)
    before = entry["stages"]["shipped"]
    drift = _of_vectors if result.scores is None else _of_text
    return list(drift(before, result))


def _of_text(before: Mapping[str, Any], result: Verification) -> Iterator[Gate]:
    now = result.figures
    kld = float(before["kld"]["value"])
    ratio = float(before["ppl_ratio"]["value"])
    top = float(before["same_top"]["value"])
    yield Gate("drift of the KL divergence", abs(now.kld.value - kld),
               max(KLD_DRIFT * kld, KLD_FLOOR), detail=f"baseline {kld:.6f}")  # fmt: skip
    yield Gate("drift of the perplexity ratio", abs(now.ppl_ratio.value - ratio), RATIO_DRIFT,
               detail=f"baseline {ratio:.6f}")  # fmt: skip
    yield Gate("drift of the same top token", abs(now.same_top.value - top), TOP1_DRIFT,
               percent=True, detail=f"baseline {100 * top:.2f} %")  # fmt: skip


def _of_vectors(before: Mapping[str, Any], result: Verification) -> Iterator[Gate]:
    now = result.similarity
    cosine = float(before["cosine"]["value"])
    rank = float(before["rank_correlation"]["value"])
    yield Gate("drift of the mean cosine", abs(now.cosine.value - cosine),
               max(COSINE_DRIFT * (1 - cosine), COSINE_FLOOR),
               detail=f"baseline {cosine:.6f}")  # fmt: skip
    yield Gate("drift of the rank correlation", abs(now.rank_correlation.value - rank), RANK_DRIFT,
               detail=f"baseline {rank:.6f}")  # fmt: skip


def check_baseline(path: Path) -> None:
    """Refuse what is no report, before anything is computed.

    Raises:
        OptionError: the file cannot be read, or is something else.

    """
    _entries(path)


def _entries(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Read a report's files, each with its type."""
    try:
        report = parse_json(read_text_file(path, "the baseline", largest=SMALL))
        entries = [(str(entry["type"]), entry) for entry in report["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path}: is not a report of lfm2gguf verify; write one with --write-baseline"
        ) from error
    if report.get("version") != 1:
        raise OptionError(f"{path}: is a report of version {report.get('version')}; write it again")
    return entries


def _entry(path: Path, type: str) -> Mapping[str, Any]:
    entries = [entry for of, entry in _entries(path) if of == type]
    if not entries:
        raise OptionError(f"{path}: the baseline has no {type} file; write it again")
    found: Mapping[str, Any] = entries[0]
    return found


def _require_same_conditions(path: Path, entry: Mapping[str, Any], result: Verification) -> None:
    conditions = {
        "the reference": (entry["reference"]["digest"], result.reference_digest),
        "the material": (
            [(text["sha256"], text["chunks"]) for text in entry["texts"]],
            [(text["sha256"], text["chunks"]) for text in result.texts],
        ),
        "ctx (--ctx)": (entry["ctx"], result.ctx),
        "the engine": (entry["engine"], result.engine),
    }
    for name, (before, now) in conditions.items():
        if before != now:
            raise OptionError(
                f"{path}: the baseline cannot be compared, {name} differs; write it again"
            )
