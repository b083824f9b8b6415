"""A whole verification beside llama-perplexity's two runs: the same figures? how long?

    python tests/benchmarks/verify_beside_llama_perplexity.py CHECKPOINT BASE.gguf FILE.gguf ...
        --text wiki.test.raw --program .../llama-perplexity [--chunks 4] [--rounds 3]

BASE.gguf is the checkpoint in BF16 or F32, from which llama-perplexity writes its base file of
log-probabilities. The verification runs as a fresh process without cache, by turns with
llama-perplexity; several files go into one run of ours, and have a KL run each of theirs. What
this environment sets for BLAS is taken out (OPENBLAS_CORETYPE halves a current NumPy's speed on
processors that it does not know); the kernel that ran is printed. Times are by the clock, and in
processor seconds, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Times: TypeAlias = npt.NDArray[np.float64]  # by the clock, of the processor

FIGURES = {  # llama-perplexity's line: path of the same figure in our report, factor
    r"Mean PPL\(Q\) +: +(\S+) ± +(\S+)": ("ppl_candidate", 1),
    r"Mean PPL\(base\) +: +(\S+) ± +(\S+)": ("ppl_reference", 1),
    r"Cor\(.*\): +(\S+)%": ("correlation", 100),
    r"Mean ln\(.*\) +: +(\S+) ± +(\S+)": ("log_ppl_ratio", 1),
    r"Mean PPL\(Q\)/PPL\(base\) +: +(\S+) ± +(\S+)": ("ppl_ratio", 1),
    r"Mean PPL\(Q\)-PPL\(base\) +: +(\S+) ± +(\S+)": ("ppl_difference", 1),
    r"Mean +KLD: +(\S+) ± +(\S+)": ("kld", 1),
    r"Maximum KLD: +(\S+)": ("kld_percentiles.100", 1),
    r"99.9% +KLD: +(\S+)": ("kld_percentiles.99&9", 1),
    r"99.0% +KLD: +(\S+)": ("kld_percentiles.99", 1),
    r"Median +KLD: +(\S+)": ("kld_percentiles.50", 1),
    r"10.0% +KLD: +(\S+)": ("kld_percentiles.10", 1),
    r"Minimum KLD: +(\S+)": ("kld_percentiles.0", 1),
    r"Mean +Δp: +(\S+) ± +(\S+) %": ("delta_p", 100),
    r"Maximum Δp: +(\S+)%": ("delta_p_percentiles.100", 100),
    r"99.0% +Δp: +(\S+)%": ("delta_p_percentiles.99", 100),
    r"Median +Δp: +(\S+)%": ("delta_p_percentiles.50", 100),
    r"1.0% +Δp: +(\S+)%": ("delta_p_percentiles.1", 100),
    r"Minimum Δp: +(\S+)%": ("delta_p_percentiles.0", 100),
    r"RMS Δp +: +(\S+) ± +(\S+) %": ("delta_p_rms", 100),
    r"Same top p: +(\S+) ± +(\S+) %": ("same_top", 100),
}


BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
KERNEL = """
import ctypes, glob, os, numpy
for path in glob.glob(os.path.join(os.path.dirname(numpy.__file__), "..", "numpy.libs", "*blas*")):
    name = ctypes.CDLL(path).scipy_openblas_get_corename64_
    name.restype = ctypes.c_char_p
    print(name().decode())
"""


def run(*command: object) -> tuple[str, Times]:
    """Run a program to its end; what it said, and its seconds by the clock and the processor."""
    left = {name: value for name, value in os.environ.items() if name not in BLAS}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=left,
    )
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: a gate failed, which random weights are free to do
        sys.exit(done.stdout)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stdout, np.array([clock, used])


def lookup(figures: dict, path: str, factor: float) -> tuple[float, float | None]:
    for key in path.split("."):
        figures = figures[key.replace("&", ".")]
    if isinstance(figures, dict):
        return factor * figures["value"], factor * figures["uncertainty"]
    return factor * figures, None


def compare(result: dict, said: str, said_base: str, direct: str) -> None:
    """Print the figures of both side by side."""
    figures = result["stages"]["shipped"]
    print(f"{'':22} {'llama-perplexity':>28} {'lfm2gguf':>28}")
    for pattern, (path, factor) in FIGURES.items():
        theirs = re.search("^" + pattern, said, re.MULTILINE)
        if theirs:
            value, error = lookup(figures, path, factor)
            shown = f"{value:.6f}" + (f" ± {error:.6f}" if error is not None else "")
            print(f"{path.replace('&', '.'):22} {' ± '.join(theirs.groups()):>28} {shown:>28}")
    for name, text, key in (("base", said_base, "reference"), ("file", direct, "candidate")):
        estimate = re.search(r"Final estimate: PPL = (\S+)", text)
        if estimate is None:  # its variance came out negative, which it does on short texts
            continue
        ppl, mine = float(estimate[1]), figures[f"ppl_{key}"]["value"]
        print(f"direct PPL of the {name}: {ppl:.4f}, ours {mine:.4f} ({mine / ppl - 1:+.4%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("base")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--text", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--times-only", action="store_true")
    o = parser.parse_args()
    rounds: list[tuple[Times, Times, Times]] = []  # base run, KL runs, ours
    with tempfile.TemporaryDirectory() as folder:
        kld, report = Path(folder) / "base.kld", Path(folder) / "report.json"
        ladder = Path(folder) / "ladder"  # what ours judges, in one run
        ladder.mkdir()
        for i, file in enumerate(o.files):
            (ladder / f"{i:02}-{Path(file).name}").symlink_to(Path(file).resolve())
        shared = ("-f", o.text, "--chunks", o.chunks, "-t", o.threads, "--kl-divergence-base", kld)
        for _ in range(o.rounds):
            said_base, base = run(o.program, "-m", o.base, *shared)
            said = [run(o.program, "-m", file, *shared, "--kl-divergence") for file in o.files]
            _, ours = run(
                sys.executable, "-m", "lfm2gguf_cli.main", "verify", ladder, "-r", o.checkpoint,
                "--text", o.text, "--chunks", o.chunks, "--no-cache", "--json-file", report,
                "--quiet",
            )  # fmt: skip
            rounds.append((base, sum(times for _, times in said), ours))
        size = kld.stat().st_size
        results = json.loads(report.read_text())["files"]
        if not o.times_only:
            direct, _ = run(o.program, "-m", o.files[0], "-f", o.text, "--chunks", o.chunks)
            compare(results[0], said[0][0], said_base, direct)
    base, second, ours = np.median(rounds, axis=0)
    parts = {name: round(seconds, 2) for name, seconds in results[0]["seconds"].items()}
    print(f"NumPy's BLAS kernel: {run(sys.executable, '-c', KERNEL)[0].strip()}")
    print(f"{len(o.files)} files, medians of {o.rounds} rounds; seconds by the clock (processor)")
    print(f"llama-perplexity: base run {base[0]:.1f} ({base[1]:.1f})")
    print(f"                  KL runs  {second[0]:.1f} ({second[1]:.1f})")
    print(f"its base file:    {size / 1e6:.0f} MB")
    print(f"lfm2gguf verify:  {ours[0]:.1f} ({ours[1]:.1f}) {json.dumps(parts)}")
    for name, theirs in (
        ("both", [a + b for a, b, _ in rounds]),
        ("KL runs", [b for _, b, _ in rounds]),
    ):
        ratios = np.array(
            [times / other for (_, _, times), other in zip(rounds, theirs, strict=True)]
        )
        middle, low, high = np.median(ratios, axis=0), ratios.min(axis=0), ratios.max(axis=0)
        print(
            f"ratio to {name + ':':9} {middle[0]:.2f} ({low[0]:.2f} to {high[0]:.2f}), "
            f"processor {middle[1]:.2f} ({low[1]:.2f} to {high[1]:.2f})"
        )


if __name__ == "__main__":
    main()
