"""Kill commands at random moments (SIGKILL), then run them again: no wrong file, nothing left.

    python tests/benchmarks/kills.py CHECKPOINT --runs 100

After each kill: what stands under a final name must be whole (the bytes of an undisturbed run, or
the older file that was there), and the children must be gone. After the next run of the same
command: its files are right, and nothing else is in the folder, the temporary folder, the cache or
/dev/shm. Prints JSON; exit code 1 where something is wrong. Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.making.serving import COMMAND

OLD = b"an older file"
SMALL = ("--ctx", "64", "--chunks", "8", "-q")


def commands(source: Path, bf16: Path, out: Path) -> dict[str, list[str]]:
    """Return what is killed, by name; all write into ``out`` and nowhere else."""
    texts = ["--text", str(source / "README.md"), *SMALL]
    made = {
        "convert": ["convert", source, "-t", "Q4_K_M", "-o", out / "a.gguf", "-j", "2"],
        "convert-two": ["convert", source, "-t", "Q8_0", "-t", "Q4_0", "-o", f"{out}/", "-j", "2"],
        "convert-split": ["convert", source, "-t", "F32", "-o", out / "s.gguf", "-j", "1",
                          "--split-max-size", "5M"],
        "quantize": ["quantize", bf16, "-t", "Q6_K", "-o", out / "q.gguf", "-j", "2"],
        "imatrix": ["imatrix", source, "-o", out / "i.gguf", *texts],
        "calibrate": ["calibrate", source, "-t", "Q4_0", "-o", out / "c.gguf", *texts],
        "export": ["export", "ollama", bf16, "-o", out / "Modelfile"],
    }  # fmt: skip
    return {name: [*map(str, command), "--force"] for name, command in made.items()}


@dataclass
class Found:
    """What has been seen."""

    killed: int = 0
    ended_before: int = 0
    by_command: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    partial: int = 0
    wrong: list[list[object]] = field(default_factory=list)
    strays: list[list[object]] = field(default_factory=list)
    left: list[list[object]] = field(default_factory=list)


@dataclass
class Kills:
    """Commands, what they write when nobody disturbs them, and where."""

    source: Path
    work: Path
    draw: random.Random
    good: dict[str, dict[str, str]] = field(default_factory=dict)  # command -> file -> digest
    took: dict[str, float] = field(default_factory=dict)
    found: Found = field(default_factory=Found)

    @property
    def out(self) -> Path:
        return self.work / "out"

    @property
    def environment(self) -> dict[str, str]:
        own = {"TMPDIR": str(self.work / "tmp"), "LFM2GGUF_CACHE": str(self.work / "cache")}
        return {**os.environ, **own}

    def command(self, name: str) -> list[str]:
        return [*COMMAND, *commands(self.source, self.work / "bf16.gguf", self.out)[name]]

    def prepare(self) -> None:
        """Run each command undisturbed, once to warm up and once for its time."""
        for folder in ("tmp", "cache", "out"):
            (self.work / folder).mkdir(parents=True)
        bf16 = ["convert", str(self.source), "-t", "BF16", "-o", str(self.work / "bf16.gguf")]
        subprocess.run([*COMMAND, *bf16, "-q"], env=self.environment, check=True)
        for name in commands(self.source, self.work, self.out):
            for _ in range(2):
                self.empty()
                began = time.monotonic()
                self.run(name)
                self.took[name] = time.monotonic() - began
            self.good[name] = self.files()

    def run(self, name: str) -> None:
        done = subprocess.run(
            self.command(name), env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1):  # 1: a calibration on so little text is no better
            self.found.wrong.append([name, done.returncode, done.stderr[-200:]])

    def empty(self) -> None:
        shutil.rmtree(self.out)
        self.out.mkdir()

    def files(self) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(self.out.iterdir())}  # fmt: skip

    def elsewhere(self) -> set[str]:
        """Name what lies where nothing may be left: temporary files, cache, shared memory."""
        folders = (self.work / "tmp", self.work / "cache", Path("/dev/shm"))
        return {str(path) for folder in folders for path in folder.rglob("*")}

    def kill(self, name: str, *, older: bool) -> None:
        """Kill one run, look at what it left, and at what the next one leaves."""
        self.empty()
        if older:
            for file in self.good[name]:
                (self.out / file).write_bytes(OLD)
        before = self.elsewhere()
        process = subprocess.Popen(
            self.command(name), env=self.environment, stdout=-3, stderr=-3, start_new_session=True
        )
        time.sleep(self.draw.uniform(0.02, 1.02 * self.took[name]))
        children = descendants(process.pid)
        self.found.by_command[name] += 1
        if process.poll() is None:
            self.found.killed += 1
            process.send_signal(signal.SIGKILL)
        else:
            self.found.ended_before += 1
        process.wait()
        if strays := still_there(children, 5):
            self.found.strays.append([name, *strays])
        self._look(name)
        self.run(name)
        now = self.files()
        if now != self.good[name]:
            self.found.wrong.append([name, "the next run", now])
        if more := self.elsewhere() - before:
            self.found.left.append([name, *sorted(more)[:3]])

    def _look(self, name: str) -> None:
        """Judge the files under final names after a kill."""
        old, good = hashlib.sha256(OLD).hexdigest(), self.good[name]
        for file, digest in self.files().items():
            if ".partial" in file:
                self.found.partial += 1
            elif digest == good.get(file):
                self.found.whole += 1
            elif digest != old:
                self.found.wrong.append([name, file, (self.out / file).stat().st_size])


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def still_there(pids: list[int], seconds: float) -> list[int]:
    """Wait for processes to end; return those that do not, and end them."""
    end = time.monotonic() + seconds
    while (running := [pid for pid in pids if _runs(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return running


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lfm2gguf-kills-") as folder:
        work = Path(folder) / "work"
        kills = Kills(given.checkpoint.resolve(), work, random.Random(given.seed))
        kills.prepare()
        names = list(kills.good)
        for i in range(given.runs):
            kills.kill(names[i % len(names)], older=i // len(names) % 2 == 1)
        found = kills.found
        took = {name: round(seconds, 1) for name, seconds in kills.took.items()}
    print(json.dumps({"seed": given.seed, "runs": given.runs, "took": took, **vars(found)}))
    sys.exit(bool(found.wrong or found.strays or found.left))


if __name__ == "__main__":
    main()
