"""What is to be measured: the cells of both tables, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lfm2gguf.bench.workloads import WORKLOAD_NAMES, workload
from lfm2gguf.errors import OptionError

DEPTH, WORKLOADS = "depth", "workloads"
SUITES = {"depth": (DEPTH,), "workloads": (WORKLOADS,), "all": (DEPTH, WORKLOADS)}
CONTEXTS = (1024, 2048, 4096, 8192, 16384, 32768)
DECODED = 32  # tokens decoded at each depth
WARM_UP = 512  # tokens of prompt when a depth is warmed up


@dataclass(frozen=True)
class Cell:
    """One row to be measured: so many prompt and output tokens, so many requests at once."""

    suite: str
    name: str
    prompt: int
    output: int
    concurrency: int = 1

    @property
    def is_depth(self) -> bool:
        """Whether it is a row of the table of depths."""
        return self.suite == DEPTH

    @property
    def label(self) -> str:
        """``depth 4k``, or ``agent x4``."""
        if self.is_depth:
            return f"depth {self.name}"
        return self.name + (f" x{self.concurrency}" if self.concurrency > 1 else "")

    @property
    def warm_up(self) -> Cell:
        """What warms it up: itself, or the beginning of a deep context."""
        return replace(self, prompt=min(self.prompt, WARM_UP)) if self.is_depth else self


def plan(
    suite: str = "all",
    contexts: Sequence[int] = CONTEXTS,
    workloads: Sequence[str] = WORKLOAD_NAMES,
    concurrency: Sequence[int] | None = None,
) -> list[Cell]:
    """Return the cells of a benchmark.

    ``concurrency`` None is as published: what each workload says.

    Raises:
        OptionError: an unknown suite or workload, or a number that is too small.

    """
    if suite not in SUITES:
        raise OptionError(f"suite: {suite!r} is unknown; choose from {', '.join(SUITES)}")
    for what, least, values in (("context", 16, contexts), ("concurrency", 1, concurrency or ())):
        wrong = [value for value in values if value < least]
        if wrong:
            raise OptionError(f"{what}: {wrong[0]} is too small; give at least {least}")
    depth = [Cell(DEPTH, short(n), n, DECODED) for n in sorted(set(contexts))]
    requests = [
        Cell(WORKLOADS, name, w.prompt_tokens, w.output_tokens, many)
        for name in dict.fromkeys(workloads)
        for w in (workload(name),)
        for many in sorted(set(concurrency or w.concurrency))
    ]
    cells = {DEPTH: depth, WORKLOADS: requests}
    return [cell for each in SUITES[suite] for cell in cells[each]]


def short(tokens: int) -> str:
    """Write 4096 as ``4k``, numbers that are not multiples of 1024 as they are."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def tokens(text: str) -> int:
    """Read ``4k`` or ``4096``.

    Raises:
        OptionError: the text is neither.

    """
    digits = text.strip().lower()
    factor = 1024 if digits.endswith("k") else 1
    digits = digits.removesuffix("k")
    if not digits.isdecimal():
        raise OptionError(f"contexts: {text!r} is not a length; write one such as 4k or 4096")
    return int(digits) * factor
