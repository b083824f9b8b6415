"""A whole verification beside llama-perplexity's two runs: the same figures? how long?

    python tests/benchmarks/verify_beside_llama_perplexity.py CHECKPOINT BASE.gguf FILE.gguf
        --text wiki.test.raw --program .../llama-perplexity [--chunks 4]

BASE.gguf is the checkpoint in BF16 or F32, from which llama-perplexity writes its base file of
log-probabilities. The verification runs as a fresh process without cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def run(*command: object) -> tuple[str, float]:
    started = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode not in (0, 1):  # 1: a gate failed, which random weights are free to do
        sys.exit(done.stdout)
    return done.stdout, time.perf_counter() - started


def lookup(figures: dict, path: str, factor: float) -> tuple[float, float | None]:
    for key in path.split("."):
        figures = figures[key.replace("&", ".")]
    if isinstance(figures, dict):
        return factor * figures["value"], factor * figures["uncertainty"]
    return factor * figures, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("base")
    parser.add_argument("file")
    parser.add_argument("--text", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kld, report = Path(folder) / "base.kld", Path(folder) / "report.json"
        shared = ("-f", o.text, "--chunks", o.chunks, "-t", o.threads, "--kl-divergence-base", kld)
        said_base, base = run(o.program, "-m", o.base, *shared)
        size = kld.stat().st_size
        said, second = run(o.program, "-m", o.file, *shared, "--kl-divergence")
        direct, _ = run(o.program, "-m", o.file, "-f", o.text, "--chunks", o.chunks)
        _, ours = run(
            sys.executable, "-m", "lfm2gguf_cli.main", "verify", o.file, "-r", o.checkpoint,
            "--text", o.text, "--chunks", o.chunks, "--no-cache", "--json-file", report, "--quiet",
        )  # fmt: skip
        result = json.loads(report.read_text())["files"][0]
    figures = result["stages"]["shipped"]
    print(f"{'':22} {'llama-perplexity':>28} {'lfm2gguf':>28}")
    for pattern, (path, factor) in FIGURES.items():
        theirs = re.search("^" + pattern, said, re.MULTILINE)
        if theirs:
            value, error = lookup(figures, path, factor)
            shown = f"{value:.6f}" + (f" ± {error:.6f}" if error is not None else "")
            print(f"{path.replace('&', '.'):22} {' ± '.join(theirs.groups()):>28} {shown:>28}")
    for name, text, key in (("base", said_base, "reference"), ("file", direct, "candidate")):
        ppl = float(re.search(r"Final estimate: PPL = (\S+)", text)[1])
        mine = figures[f"ppl_{key}"]["value"]
        print(f"direct PPL of the {name}: {ppl:.4f}, ours {mine:.4f} ({mine / ppl - 1:+.4%})")
    parts = {name: round(seconds, 2) for name, seconds in result["seconds"].items()}
    print(f"llama-perplexity: base run {base:.1f} s, KL run {second:.1f} s")
    print(f"its base file:    {size / 1e6:.0f} MB")
    print(f"lfm2gguf verify:  {ours:.1f} s {json.dumps(parts)}")
    print(f"ratio:            {ours / (base + second):.2f}")


if __name__ == "__main__":
    main()
