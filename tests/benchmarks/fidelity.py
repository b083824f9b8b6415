"""What an importance matrix and calibration buy: files of the same types, judged on other text.

    python -m tests.benchmarks.fidelity [--types Q4_0 Q4_K_M] [--text CALIBRATE JUDGE] [CHECKPOINT]

Calibrates on one text, judges on another as llama.cpp runs the files (``verify``), and prints a
Markdown table. Files with an importance matrix are llama-quantize's, byte for byte. Without
--text the two halves of Python's documentation are used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import lfm2gguf
from lfm2gguf.conversion import Recipe
from lfm2gguf.verification import Figures, Material, Session, load_texts

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"
CHUNKS, JUDGED = 64, 16
TYPES = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_S", "Q4_K_M", "IQ4_XS", "Q5_K_M", "Q6_K")
HEADS = (
    "type", "bytes imatrix / calibrated", "KLD plain", "imatrix", "calibrated", "ratio",
    "99% KLD", "same top", "PPL", "CPU s",
)  # fmt: skip


def halves(folder: Path) -> list[Path]:
    """Write both halves of Python's documentation."""
    [text] = load_texts(["python-docs"])
    middle = text.content.rfind("\n", 0, len(text.content) // 2)
    paths = [folder / "first.txt", folder / "second.txt"]
    for path, part in zip(paths, (text.content[:middle], text.content[middle:]), strict=True):
        path.write_text(part, encoding="utf-8")
    return paths


def main() -> None:
    """Print a row for each type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument(
        "--types", nargs="+", default=["Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K"]
    )
    parser.add_argument("--text", nargs=2, type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = arguments.text or halves(folder)
        matrix = lfm2gguf.collect_imatrix(arguments.checkpoint, [first], chunks=CHUNKS)
        session = Session(arguments.checkpoint, Material([second], chunks=JUDGED, cache=False))

        def figures(path: Path) -> Figures:
            result = session.judge(path).figures
            assert isinstance(result, Figures)
            return result

        print(f"| {' | '.join(HEADS)} |")
        print(f"|{'---|' * len(HEADS)}")
        for type in arguments.types:
            plain, weighed, ours = (folder / f"{type}-{n}.gguf" for n in ("p", "i", "c"))
            lfm2gguf.convert(arguments.checkpoint, plain, type)
            lfm2gguf.convert(arguments.checkpoint, weighed, Recipe(type, imatrix=matrix))
            began = time.process_time()
            lfm2gguf.calibrate(
                arguments.checkpoint, ours, type, texts=[first], chunks=CHUNKS * 8 // 7
            )
            seconds = time.process_time() - began
            p, i, c = (figures(path) for path in (plain, weighed, ours))
            print(
                f"| {type} | {weighed.stat().st_size:,} / {ours.stat().st_size:,} "
                f"| {p.kld.value:.6f} | {i.kld.value:.6f} | {c.kld.value:.6f} "
                f"| **{c.kld.value / i.kld.value:.2f}** "
                f"| {i.kld_percentiles['99']:.4f} / {c.kld_percentiles['99']:.4f} "
                f"| {i.same_top.value:.2%} / {c.same_top.value:.2%} "
                f"| {i.ppl_candidate.value:.3f} / {c.ppl_candidate.value:.3f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
