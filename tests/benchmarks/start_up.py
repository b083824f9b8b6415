"""What commands cost before they do anything: the help, the import, a small conversion.

    python tests/benchmarks/start_up.py [--rounds 20] [--beside ANOTHER_CHECKOUT]

Each round runs every case once, in a process of its own, beside bare Python and beside what an
import of Typer or NumPy alone takes. With ``--beside`` the cases of another checkout run in turn
with this one's. Prints JSON: medians in milliseconds, elapsed and of processors (of the process and
its children), and the machine's load before and after.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tiny-lfm2"
CALL = ("-c", "from lfm2gguf_cli.main import main; main()")
BASE = {
    "python": ("-c", "pass"),
    "import numpy": ("-c", "import numpy"),
    "import typer": ("-c", "import typer"),
}

Words = tuple[str, ...]


def cases(folder: Path) -> dict[str, tuple[Words, dict[str, str]]]:
    """Return what is run: Python's arguments, and variables of the environment."""
    from lfm2gguf_cli.main import COMMANDS

    convert = ("convert", str(EXAMPLE), "-t", "Q4_K_M", "--force", "-o", str(folder / "x.gguf"))
    found: dict[str, tuple[Words, dict[str, str]]] = {
        "import lfm2gguf": (("-c", "import lfm2gguf"), {}),
        "--help": ((*CALL, "--help"), {}),
        **{f"{name} --help": ((*CALL, name, "--help"), {}) for name in COMMANDS},
        "convert": ((*CALL, *convert), {}),
        "convert, numpy": ((*CALL, *convert), {"LFM2GGUF_KERNELS": "numpy"}),
    }
    if importlib.util.find_spec("numba"):
        found["convert, numba"] = ((*CALL, *convert), {"LFM2GGUF_KERNELS": "numba"})
    return found


def measure(words: Words, variables: dict[str, str], root: Path) -> tuple[float, float]:
    """Run Python on a checkout; return milliseconds elapsed and of processors."""
    path = os.pathsep.join((str(root), str(root / "cli")))
    environment = os.environ | variables | {"PYTHONPATH": path}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: bytecode is there
    used, began = _processor(), time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=True)
    return 1000 * (time.perf_counter() - began), 1000 * (_processor() - used)


def _processor() -> float:
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--beside", type=Path, help="the root of another checkout")
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "cli")]
    roots = {"this": ROOT} | ({"other": given.beside.resolve()} if given.beside else {})
    with tempfile.TemporaryDirectory() as folder:
        runs = {(name, "alone"): (words, {}, ROOT) for name, words in BASE.items()}
        for name, (words, variables) in cases(Path(folder)).items():
            if given.only in name:
                runs |= {(name, which): (words, variables, root) for which, root in roots.items()}
        for run in runs.values():  # bytecode and machine code are compiled once
            measure(*run)
        load = os.getloadavg()[0]
        rounds = [{key: measure(*run) for key, run in runs.items()} for _ in range(given.rounds)]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, which in runs:
        elapsed, processor = zip(*(times[name, which] for times in rounds), strict=True)
        found.setdefault(name, {})[which] = {
            "elapsed": round(statistics.median(elapsed), 1),
            "processor": round(statistics.median(processor), 1),
        }
    about = {"rounds": given.rounds, "load": [load, os.getloadavg()[0]], "unit": "ms, medians"}
    print(json.dumps(about | {"cases": found}, indent=2))


if __name__ == "__main__":
    main()
