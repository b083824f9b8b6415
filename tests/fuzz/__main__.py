"""Run areas for long, or one input again with its traceback: see the README beside this file."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import AREAS, module_of, run


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("areas", nargs="*", default=AREAS, metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--seconds", type=float, default=60, help="for each area")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=sys.maxsize, help="inputs of each area")
    parser.add_argument("--one", type=int, help="make and check this input in this process")
    parser.add_argument("--folder", type=Path, help="where --one leaves its input")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    given = parser.parse_args()
    if given.one is not None:
        return one(given.areas[0], given.seed, given.one, given.folder)
    campaigns = []
    for area in given.areas:
        campaigns.append(run(area, given.seed, given.seconds, given.first, given.count))
        print(campaigns[-1], flush=True)
    if given.json:
        figures = [{"area": c.area, "seed": c.seed, "inputs": c.inputs, "kinds": c.kinds,
                    "seconds": round(c.seconds, 1), "labels": c.labels,
                    "faults": [vars(fault) for fault in c.faults.values()]}
                   for c in campaigns]  # fmt: skip
        given.json.write_text(json.dumps(figures, indent=1))
    sys.exit(any(c.faults for c in campaigns))


def one(name: str, seed: int, number: int, folder: Path | None) -> None:
    """Show one input and what the product does with it."""
    os.environ["LFM2GGUF_TRACEBACK"] = "1"
    base = Path(tempfile.mkdtemp(prefix="lfm2gguf-fuzz-base-"))
    os.environ["LFM2GGUF_CACHE"] = str(base / "cache")
    folder = folder or Path(tempfile.mkdtemp(prefix="lfm2gguf-fuzz-one-"))
    folder.mkdir(parents=True, exist_ok=True)
    area = importlib.import_module(module_of(name))
    area.prepare(base)
    print(area.make(random.Random(f"{seed} {number}"), base, folder), "in", folder)
    print(area.check(base, folder))


if __name__ == "__main__":
    main()
