"""A server in a process of its own, and what the system knows of that process (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "lfm2gguf_cli.main"]
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Use:
    """What a process takes at one moment."""

    rss: int  # bytes
    descriptors: int
    threads: int
    processor: float  # seconds so far


@dataclass
class Process:
    """A running server: its address and its process."""

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def use(self) -> Use:
        """Ask the system what it takes now."""
        own = Path("/proc") / str(self.process.pid)
        numbers = {
            key: int(rest.split()[0])
            for key, _, rest in (line.partition(":") for line in _lines(own / "status"))
            if key in ("VmRSS", "Threads")
        }
        times = (own / "stat").read_text().rsplit(")", 1)[1].split()
        return Use(
            rss=numbers["VmRSS"] * 1024,
            descriptors=len(os.listdir(own / "fd")),
            threads=numbers["Threads"],
            processor=(int(times[11]) + int(times[12])) / TICKS,
        )

    def terminate(self, within: float) -> tuple[int | None, float]:
        """Send SIGTERM; return the exit code (None: it had to be killed) and the seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        return code, time.monotonic() - began


@contextmanager
def served(model: Path, *options: str, log: Path | None = None) -> Iterator[Process]:
    """Run ``lfm2gguf serve`` on a free port until the end of the block."""
    command = [*COMMAND, "serve", str(model), "--port", "0", *options]
    with (log or Path(os.devnull)).open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removesuffix("/v1")
        if not url:
            raise RuntimeError(f"the server did not start: {command}")
        yield Process(url, process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
