"""Convert, verify and run LFM2 models as GGUF.

The names below are loaded when they are first used, so that importing the package (and the
command line's ``--help``) stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf.version import __version__

if TYPE_CHECKING:
    from lfm2gguf import quants
    from lfm2gguf.allocation import Allocation, Budget, allocate
    from lfm2gguf.bench import benchmark
    from lfm2gguf.calibration import Calibrated, calibrate, collect_imatrix
    from lfm2gguf.conversion import (
        Conversion,
        ConvertedAdapter,
        WrittenFile,
        convert,
        convert_lora,
        plan,
        quantize,
    )
    from lfm2gguf.doctor import Diagnosis, Finding, Severity, diagnose
    from lfm2gguf.ggml import FileType, GGMLType
    from lfm2gguf.gguf_file import GGUFFile
    from lfm2gguf.progress import Progress
    from lfm2gguf.publication import Publication, plan_publication, publish
    from lfm2gguf.rendering import progress_bar
    from lfm2gguf.runner import Reply, Runner, ToolCall
    from lfm2gguf.verification import Verification, verify

__all__ = [
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

_HOME = {
    "Allocation": "lfm2gguf.allocation",
    "Budget": "lfm2gguf.allocation",
    "allocate": "lfm2gguf.allocation",
    "Calibrated": "lfm2gguf.calibration",
    "Conversion": "lfm2gguf.conversion",
    "ConvertedAdapter": "lfm2gguf.conversion",
    "Diagnosis": "lfm2gguf.doctor",
    "FileType": "lfm2gguf.ggml",
    "Finding": "lfm2gguf.doctor",
    "GGMLType": "lfm2gguf.ggml",
    "GGUFFile": "lfm2gguf.gguf_file",
    "Progress": "lfm2gguf.progress",
    "Publication": "lfm2gguf.publication",
    "Reply": "lfm2gguf.runner",
    "Runner": "lfm2gguf.runner",
    "Severity": "lfm2gguf.doctor",
    "ToolCall": "lfm2gguf.runner",
    "Verification": "lfm2gguf.verification",
    "WrittenFile": "lfm2gguf.conversion",
    "benchmark": "lfm2gguf.bench",
    "calibrate": "lfm2gguf.calibration",
    "collect_imatrix": "lfm2gguf.calibration",
    "convert": "lfm2gguf.conversion",
    "convert_lora": "lfm2gguf.conversion",
    "diagnose": "lfm2gguf.doctor",
    "plan": "lfm2gguf.conversion",
    "plan_publication": "lfm2gguf.publication",
    "progress_bar": "lfm2gguf.rendering",
    "publish": "lfm2gguf.publication",
    "quantize": "lfm2gguf.conversion",
    "verify": "lfm2gguf.verification",
}


def __getattr__(name: str) -> Any:
    if name == "quants":
        return import_module("lfm2gguf.quants")
    if name not in _HOME:
        raise AttributeError(f"module 'lfm2gguf' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
