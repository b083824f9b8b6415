"""Where a file runs: which backend computes its types, and how new llama.cpp has to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject
from lfm2gguf.ggml import GGMLType
from lfm2gguf.llamacpp import Backend
from lfm2gguf.loadable import NOT_WEIGHTS
from lfm2gguf.members import ARCHITECTURES


def types(subject: Subject, backend: Backend) -> Iterator[Finding]:
    """Find types of a GGUF that llama.cpp cannot run on the backend."""
    if subject.kind != "gguf":
        return
    names: dict[GGMLType, list[str]] = defaultdict(list)
    for tensor in subject.weights:
        if tensor.type is not None:
            names[tensor.type].append(tensor.name)
    for type, found in names.items():
        where = f"{found[0]} and {len(found) - 1} more" if len(found) > 1 else found[0]
        if type in backend.lacks and type not in NOT_WEIGHTS:
            yield Finding(
                "type-not-on-backend", Severity.ERROR, where,
                f"is {type.name}, which llama.cpp does not compute on {backend.name} "
                f"({backend.source}, commit 0c1e57098): these tensors run on the CPU",
                f"quantize to a type that {backend.name} has, such as Q4_K_M or Q8_0",
            )  # fmt: skip
        elif type in backend.lacks_when_old:
            yield Finding(
                "type-not-on-backend", Severity.WARNING, where,
                f"is {type.name}, which llama.cpp computes on {backend.name} only where the GPU "
                f"has it ({backend.source}, commit 0c1e57098)",
                "for older GPUs convert to F16 or Q8_0",
            )  # fmt: skip


@dataclass(frozen=True)
class Requirement:
    """Something that llama.cpp learned: a pull request of ggml-org/llama.cpp, and when.

    ``build`` is 0 where no source that names it was at hand.
    """

    what: str
    pull_request: int
    since: str
    build: int
    applies: Callable[[Subject], bool]

    @property
    def name(self) -> str:
        """The build's name, or its month."""
        return f"b{self.build}" if self.build else f"a build of {self.since}"

    @property
    def source(self) -> str:
        """Where it is from, and what is not known of it."""
        build = "" if self.build else "; the number of its first build is not known here"
        return f"pull request {self.pull_request}{build}"


# In the order in which llama.cpp learned them. Sources: the pull requests; b6709 from
# mybigday/llama.rn's pull request 224, which took it for lfm2moe; b9777 counted back from
# 1191758c5, which llama-bench calls build 9780 in pull request 25008, three commits later.
REQUIREMENTS = (
    Requirement("the architecture lfm2", 14620, "2025-07", 0, lambda s: s.architecture == "lfm2"),
    Requirement(
        "an output matrix of its own", 15476, "2025-08", 0,
        lambda s: s.architecture == "lfm2" and "output.weight" in s.shapes,
    ),
    Requirement(
        "the architecture lfm2moe", 16464, "2025-10", 6709, lambda s: s.architecture == "lfm2moe"
    ),
    Requirement(
        "a dense layer after the model (ColBERT)", 18607, "2026-01", 0,
        lambda s: "dense_2.weight" in s.shapes,
    ),
    Requirement(
        "bidirectional attention and centred convolution", 24913, "2026-06", 9777,
        lambda s: s.own("attention.causal") is False,
    ),
)  # fmt: skip
NEW_TYPES = {GGMLType[name] for name in ("MXFP4", "NVFP4", "Q1_0", "Q2_0")}


def minimum_build(subject: Subject) -> Iterator[str]:
    """Name the oldest llama.cpp that loads it, as far as there are sources for it."""
    needed = [requirement for requirement in REQUIREMENTS if requirement.applies(subject)]
    if subject.architecture in ARCHITECTURES and needed:
        newest = needed[-1]
        yield (
            f"needs {newest.name} of llama.cpp or later, for {newest.what} ({newest.source}); "
            "builds of December 2025 without pull requests 18105 and 18132 report a missing tensor"
        )
    new = {t.type.name for t in subject.weights if t.type in NEW_TYPES}
    if new and subject.kind == "gguf":
        yield (
            f"needs a llama.cpp that knows {', '.join(sorted(new))}: commit 0c1e57098 "
            "(llama-cpp-python 0.3.36) does, and the first that did is not known here"
        )
