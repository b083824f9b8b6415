"""Every figure of speed beside llama.cpp's programs, in one command and some seven minutes.

    python tests/benchmarks/beside_llama_cpp.py FOLDER --programs llama.cpp/build/bin
        --text wiki.test.raw --out figures.json

FOLDER holds what ``make_checkpoint.py`` makes of LFM2-350M's and LFM2-1.2B's configs, the latter
with ``--sharp 6``, and their conversions: ``LFM2-350M/``, ``LFM2-350M-BF16.gguf``,
``LFM2-350M-Q4_K_M.gguf`` and ``LFM2-1.2B-Q4_K_M.gguf``. Each part is a script of its own, and
its report goes into FILE as it is; ``--only`` runs some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def parts(folder: Path, programs: Path, text: Path) -> dict[str, list[object]]:
    """Return the commands of all parts: script and arguments, by name."""
    small, large = folder / "LFM2-350M-Q4_K_M.gguf", folder / "LFM2-1.2B-Q4_K_M.gguf"
    verify: list[object] = [
        "verify_beside_llama_perplexity.py", folder / "LFM2-350M", folder / "LFM2-350M-BF16.gguf",
    ]  # fmt: skip
    given = ["--text", text, "--program", programs / "llama-perplexity"]
    return {
        "verify": [*verify, small, *given, "--rounds", 3],
        "ladder": [*verify, *[small] * 5, *given, "--times-only"],
        "alone": ["runner_speed.py", large, "--programs", programs, "--what", "alone",
                  "--rounds", 20],
        "guesses": ["speculation.py", small, "--text", text, "--rounds", 3],
        "guesses of 1.2B": ["speculation.py", large, "--text", text, "--rounds", 1,
                            "--tokens", 64],
        "four at once": ["runner_speed.py", small, "--programs", programs, "--what", "together"],
        "serve": ["serve_start_and_prefix.py", small, "--programs", programs, "--rounds", 2],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", help="a part's name; may be given again")
    given = parser.parse_args()
    found: dict[str, object] = {"load_average": os.getloadavg()}
    for name, command in parts(given.folder, given.programs, given.text).items():
        if given.only and name not in given.only:
            continue
        began = time.perf_counter()
        script, *arguments = map(str, command)
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True
        )
        try:
            report: object = json.loads(done.stdout)
        except ValueError:
            report = (done.stdout + done.stderr[-2000:]).splitlines()
        found[name] = {"seconds": round(time.perf_counter() - began), "report": report}
        print(f"{name}: {found[name]['seconds']} s", flush=True)  # type: ignore[index]
        given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(given.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
