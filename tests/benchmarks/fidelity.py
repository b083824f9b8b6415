"""What calibration buys over llama.cpp's importance matrix, as llama-perplexity measures it.

    python -m tests.benchmarks.fidelity LLAMA_BIN --wikitext wiki.test.raw [--types Q4_0 Q4_K_M]
        [--out results.jsonl] [CHECKPOINT]

LLAMA_BIN holds llama-imatrix, llama-quantize and llama-perplexity (commit 0c1e57098). For each
type and each of two texts (first halves of Python's documentation and of WikiText-2) there is
llama-quantize's file with llama-imatrix's matrix of that text, and ours. Both are judged on the
second halves and on conversations, against the F32 file. Prints Markdown tables; every figure goes
to --out as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lfm2gguf
from lfm2gguf.calibration import OWN_TEXT
from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.verification import load_texts
from tests.benchmarks import fidelity_tables
from tests.benchmarks.fidelity_tables import PAIRS

ROOT = Path(__file__).parents[2]
EXAMPLE, TURNS = ROOT / "examples" / "tiny-lfm2", ROOT / "lfm2gguf" / "bench" / "texts"
CHUNKS, JUDGED, TRIES = 64, 16, 60
TYPES = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_S", "Q4_K_M", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0")
FIGURES = {
    "kld": r"Mean\s+KLD:\s+(\S+)",
    "p99": r"99\.0%\s+KLD:\s+(\S+)",
    "top": r"Same top p:\s+(\S+)",
    "ppl": r"Mean PPL\(Q\)\s+:\s+(\S+)",
}


@dataclass(frozen=True)
class Row:
    """One file on one text; ``made`` is plain, imatrix or calibrated."""

    type: str
    made: str
    calibrated_on: str
    judged_on: str
    nbytes: int
    seconds: float
    kld: float
    p99: float
    top: float
    ppl: float


class Programs:
    """llama.cpp's programs, and the F32 file that they judge by."""

    def __init__(self, folder: Path, checkpoint: Path, work: Path) -> None:
        self.folder, self.work = folder, work
        self.f32 = work / "f32.gguf"
        lfm2gguf.convert(checkpoint, self.f32, "F32")

    def run(self, name: str, *words: Any) -> str:
        """Run a program; return what it says."""
        command = [str(self.folder / name), *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
        return done.stdout + done.stderr

    def judge(self, file: Path, text: Path) -> dict[str, float]:
        """Return the figures of a file; llama-perplexity loses its last lines at times."""
        base = self.work / f"{text.stem}.kld"
        common = ["-f", text, "-c", 512, "--chunks", JUDGED, "-t", 1, "--kl-divergence-base", base]
        if not base.exists():
            self.run("llama-perplexity", "-m", self.f32, *common)
        for _ in range(TRIES):
            said = self.run("llama-perplexity", "-m", file, *common, "--kl-divergence")
            found = {key: re.search(pattern, said) for key, pattern in FIGURES.items()}
            if all(found.values()):
                return {key: float(match[1]) for key, match in found.items() if match}
        raise RuntimeError(f"llama-perplexity gave no figures for {file}:\n{said[-2000:]}")


def texts(folder: Path, wikitext: Path) -> dict[str, Path]:
    """Write the halves of both texts, and conversations in the family's markers."""
    [docs] = load_texts(["python-docs"])
    contents = {"docs": docs.content, "wiki": wikitext.read_text("utf-8")}
    parts = {"chat-2": "".join(_turns(TURNS))}
    for name, content in contents.items():
        middle = content.rfind("\n", 0, len(content) // 2)
        parts |= {f"{name}-1": content[:middle], f"{name}-2": content[middle:]}
    for name, content in parts.items():
        (folder / f"{name}.txt").write_text(content, "utf-8")
    return {name: folder / f"{name}.txt" for name in parts}


def _turns(folder: Path) -> Iterable[str]:
    def found(value: Any) -> Iterable[str]:
        if isinstance(value, dict) and isinstance(value.get("content"), str) and "role" in value:
            start, end = LFM2.turn
            yield f"{start}{value['role']}\n{value['content']}{end}\n"
        inner = value.values() if isinstance(value, dict) else value
        for item in inner if isinstance(inner, list) or isinstance(value, dict) else ():
            yield from found(item)

    for path in sorted(folder.glob("*.json")):
        yield from found(json.loads(path.read_text("utf-8")))


def measure(
    programs: Programs, checkpoint: Path, types: list[str], wikitext: Path, own_text: float
) -> Iterable[Row]:
    """Make and judge the files of each type."""
    work, files = programs.work, texts(programs.work, wikitext)
    for name in ("docs", "wiki"):
        programs.run("llama-imatrix", "-m", programs.f32, "-f", files[f"{name}-1"], "-c", 512,
                     "--chunks", CHUNKS, "-t", 1, "-o", work / f"{name}.imatrix.gguf")  # fmt: skip
    for type in types:
        plain = work / "plain.gguf"
        programs.run("llama-quantize", programs.f32, plain, type)
        for judged in ("docs", "wiki", "chat"):
            figures = programs.judge(plain, files[f"{judged}-2"])
            yield Row(type, "plain", "", judged, plain.stat().st_size, 0, **figures)
        for name in ("docs", "wiki"):
            weighed, ours = work / "imatrix.gguf", work / "calibrated.gguf"
            programs.run("llama-quantize", "--imatrix", work / f"{name}.imatrix.gguf",
                         programs.f32, weighed, type)  # fmt: skip
            began = time.process_time()
            lfm2gguf.calibrate(checkpoint, ours, type, texts=[files[f"{name}-1"]], overwrite=True,
                               chunks=CHUNKS, own_text=own_text)  # fmt: skip
            seconds = time.process_time() - began
            for judged in (judged for calibrated, judged in PAIRS if calibrated == name):
                for made, path in (("imatrix", weighed), ("calibrated", ours)):
                    figures = programs.judge(path, files[f"{judged}-2"])
                    yield Row(type, made, name, judged, path.stat().st_size, seconds, **figures)


def main() -> None:
    """Measure, write lines, print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("llama", type=Path)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--wikitext", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--own-text", type=float, default=OWN_TEXT, help="as calibrate's")
    parser.add_argument("--out", type=Path, default=Path("fidelity.jsonl"))
    arguments = parser.parse_args()
    checkpoint, own_text = arguments.checkpoint, arguments.own_text
    with tempfile.TemporaryDirectory() as name, arguments.out.open("w") as out:
        programs = Programs(arguments.llama, checkpoint, Path(name))
        rows = measure(programs, checkpoint, arguments.types, arguments.wikitext, own_text)
        for row in rows:
            print(json.dumps(asdict(row)), file=out, flush=True)
    fidelity_tables.main(str(arguments.out))


if __name__ == "__main__":
    main()
