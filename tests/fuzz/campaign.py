"""Campaigns: hostile inputs of one area, one after another, each judged in a process of its own.

An area is a module of :mod:`tests.fuzz.areas` with three functions. ``prepare(base)`` makes what
all its inputs start from, ``make(draw, base, folder)`` writes one input and says what kind it is,
and ``check(base, folder)`` gives it to the product: it returns "ok" or "refused" (or lets an
Lfm2ggufError pass) and raises :class:`~tests.fuzz.worker.WrongError` where something is wrong.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

AREAS = ("gguf", "agreement", "native", "checkpoint", "adapter", "text", "schema", "media", "http")
HANG = 30.0  # seconds of the processor for one input; it takes a few
ASLEEP = 300.0  # seconds for one input by the clock, on a machine that others use, too
ROOT = Path(__file__).parents[2]
START = "from tests.fuzz.worker import main; main()"
FAULTS = ("traceback", "hang", "died", "memory", "wrong")
LAST_WORDS = ("GGML_ASSERT", "GGML_ABORT", "what():", "terminate", "free()", "malloc", "Error")


@dataclass
class Fault:
    """What is wrong, with the numbers of the inputs that show it."""

    kind: str  # one of FAULTS
    what: str
    label: str
    inputs: list[int] = field(default_factory=list)


@dataclass
class Campaign:
    """What became of an area's inputs."""

    area: str
    seed: int
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """How many there were."""
        return sum(self.kinds.values())

    def note(self, number: int, label: str, kind: str, what: str) -> None:
        """Count what became of one input."""
        self.kinds[kind] += 1
        self.labels[label.split(" ")[0]] += 1
        if kind in FAULTS:
            fault = self.faults.setdefault((kind, what), Fault(kind, what, label))
            fault.inputs.append(number)

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {kind}" for kind, n in self.kinds.most_common())
        lines = [f"{self.area}, seed {self.seed}: {self.inputs} inputs ({counts})"]
        for fault in self.faults.values():
            again = f"python -m tests.fuzz {self.area} --seed {self.seed} --one {fault.inputs[0]}"
            count = len(fault.inputs)
            lines.append(f"  {count} x {fault.kind}: {fault.what} [{fault.label}]; again: {again}")
        return "\n".join(lines)


def module_of(area: str) -> str:
    """Return an area's module; ``planted`` is the one by which campaigns are tested."""
    return "tests.fuzz.planted" if area == "planted" else f"tests.fuzz.areas.{area}"


class Worker:
    """A process that makes and judges inputs until one of them ends it."""

    def __init__(self, area: str, seed: int, base: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process is
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
                       "LFM2GGUF_CACHE": str(base / "cache"), "LFM2GGUF_TRACEBACK": "1",
                       "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1",
                       "OMP_NUM_THREADS": "1"}  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, module_of(area), str(seed), str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.said(120)  # it has imported what it needs

    def judge(self, number: int, folder: Path) -> tuple[str, str, str]:
        """Return an input's label, and what became of it: a kind and its details."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{number}\t{folder}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return "?", "died", self._last_words()
        return self.said(HANG, ASLEEP)

    def said(self, seconds: float, asleep: float = 0.0) -> tuple[str, str, str]:
        """Wait for a line of the process, for so many seconds that it works or the clock tells."""
        assert self._process.stdout is not None
        number, label, buffer = self._process.stdout.fileno(), "?", b""
        began, worked = time.monotonic(), self._worked()
        while True:
            passed = time.monotonic() - began
            ready, _, _ = select.select([number], [], [], max(1.0, seconds - passed))
            if not ready:
                if passed > asleep or self._worked() - worked > seconds:
                    return label, "hang", f"more than {seconds:g} s"
                continue
            piece = os.read(number, 1 << 16)
            if not piece:
                return label, "died", self._last_words()
            buffer += piece
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                found: dict[str, str] = json.loads(line)
                if "kind" in found:
                    return label, found["kind"], found["what"]
                label = found["label"]

    def _worked(self) -> float:
        """Return the seconds of the processor that it has used; the clock's where none tells."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return time.monotonic()
        return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")

    def _last_words(self) -> str:
        """Return what ended the process, and what the C library said of it."""
        code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        lines = self._errors.read()[-20_000:].decode("utf-8", "replace").splitlines() or [""]
        telling = [line for line in lines if any(word in line for word in LAST_WORDS)]
        return f"{name}: {(telling or lines)[-1].strip()[-160:]}"

    def end(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def run(area: str, seed: int, seconds: float, first: int = 0, count: int = sys.maxsize) -> Campaign:
    """Judge inputs ``first``, ``first + 1``, ... of a seed for so many seconds."""
    campaign, scratch = Campaign(area, seed), Path(tempfile.mkdtemp(prefix="lfm2gguf-fuzz-"))
    base, folder = scratch / "base", scratch / "input"
    base.mkdir()
    worker, began = Worker(area, seed, base), time.monotonic()
    try:
        for number in range(first, first + count):
            if time.monotonic() - began > seconds:
                break
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            label, kind, what = worker.judge(number, folder)
            campaign.note(number, label, kind, what)
            if kind in ("hang", "died"):
                worker.end()
                worker = Worker(area, seed, base)
    finally:
        worker.end()
        shutil.rmtree(scratch, ignore_errors=True)
    campaign.seconds = time.monotonic() - began
    return campaign
