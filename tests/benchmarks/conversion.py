"""Time and memory of a whole conversion, beside llama.cpp's two programs, in one run.

    python tests/benchmarks/conversion.py CHECKPOINT --type Q4_K_M --jobs 2
        [--llama-cpp SOURCE --quantize PROGRAM --python INTERPRETER] [--runs 1] [--json]

``SOURCE`` is a llama.cpp checkout (convert_hf_to_gguf.py runs under ``INTERPRETER``, which has
torch and transformers) and ``PROGRAM`` its llama-quantize. Without them only lfm2gguf is
measured. Memory is the peak of the sum of the resident sets of a process and its descendants,
read every 20 ms (Linux only); pages that processes share are counted once for each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Measured:
    """A command's wall time in seconds, processor time in seconds, peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def resident(root: int) -> int:
    """Resident bytes of a process and its descendants."""
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            for thread in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return total


def measure(command: list[str], env: dict[str, str] | None = None) -> Measured:
    before, began, peak = os.times(), time.perf_counter(), 0
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | (env or {})
    )
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.02)
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with code {process.returncode}: {command}")
    cpu = sum(after[2:4]) - sum(before[2:4])
    return Measured(wall, cpu, peak)


def ours(args: argparse.Namespace, folder: Path) -> dict[str, Measured]:
    command = [sys.executable, "-m", "lfm2gguf_cli.main", "convert", str(args.checkpoint), "-q"]
    target = folder / "ours.gguf"
    command += ["-t", args.type, "-o", str(target), "-j", str(args.jobs), "--force"]
    return {"lfm2gguf convert": measure(command)}


def ladder(args: argparse.Namespace, folder: Path) -> dict[str, Measured]:
    """Measure several types: one reading of ours, a run of llama-quantize each."""
    types = args.type.split(",")
    command = [sys.executable, "-m", "lfm2gguf_cli.main", "convert", str(args.checkpoint), "-q"]
    command += [part for type in types for part in ("-t", type)]
    results = {"lfm2gguf convert": measure([*command, "-o", f"{folder}/", "-j", str(args.jobs)])}
    ours = {path.stem.rsplit("-", 1)[-1]: path for path in folder.glob("*.gguf")}
    for type in types:
        results[f"llama-quantize {type}"] = only_quantize(args, folder / "theirs.gguf", type)
        same(ours[type], folder / "theirs.gguf")
        ours[type].unlink()
    return results


def only_quantize(args: argparse.Namespace, target: Path, type: str) -> Measured:
    return measure([str(args.quantize), str(args.base), str(target), type, str(args.jobs)])


def same(a: Path, b: Path) -> None:
    if subprocess.run(["cmp", "-s", a, b]).returncode:
        raise SystemExit(f"{a.name} and {b.name} differ")


def theirs(args: argparse.Namespace, folder: Path) -> dict[str, Measured]:
    middle, target = folder / "middle.gguf", folder / "theirs.gguf"
    convert = [args.python, str(args.llama_cpp / "convert_hf_to_gguf.py"), str(args.checkpoint)]
    convert += ["--outtype", "bf16", "--outfile", str(middle)]
    gguf_py = {"PYTHONPATH": str(args.llama_cpp / "gguf-py")}
    quantize = [str(args.quantize), str(middle), str(target), args.type, str(args.jobs)]
    results = {"convert_hf_to_gguf": measure(convert, gguf_py), "llama-quantize": measure(quantize)}
    middle.unlink()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--base", type=Path, help="a BF16 GGUF: time llama-quantize alone")
    parser.add_argument("--quantize", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    runs: list[dict[str, Measured]] = []
    with tempfile.TemporaryDirectory(dir=args.checkpoint.parent) as folder:
        for _ in range(args.runs):
            if "," in args.type:
                runs.append(ladder(args, Path(folder)))
                continue
            run, target = ours(args, Path(folder)), Path(folder) / "theirs.gguf"
            if args.llama_cpp:
                run |= theirs(args, Path(folder))
                same(Path(folder) / "ours.gguf", target)
            elif args.base:
                run["llama-quantize alone"] = only_quantize(args, target, args.type)
                same(Path(folder) / "ours.gguf", target)
            runs.append(run)

    summary = {
        name: Measured(
            statistics.median(run[name].wall for run in runs),
            statistics.median(run[name].cpu for run in runs),
            max(run[name].peak for run in runs),
        )
        for name in runs[0]
    }
    ratios = []
    for own, *peers in (run.values() for run in runs):
        ratios += [own.wall / sum(peer.wall for peer in peers)] if peers else []
    ratio = statistics.median(ratios) if ratios else None
    if args.json:
        print(json.dumps({k: asdict(v) for k, v in summary.items()} | {"ratio": ratio}, indent=2))
        return
    for name, m in summary.items():
        print(f"{name:20} {m.wall:6.1f} s wall  {m.cpu:6.1f} s cpu  {m.peak / 1e6:7.0f} MB peak")
    if ratio is not None:
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"wall time, ours against theirs: {ratio:.3f} ({spread}); the files are equal")


if __name__ == "__main__":
    main()
