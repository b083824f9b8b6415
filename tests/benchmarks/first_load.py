"""What the first load of a file in a child process adds to opening it.

    python tests/benchmarks/first_load.py MODEL.gguf --rounds 20

Each round opens the file twice, in a process each: with an empty cache and with what the first has
left there. Prints JSON, seconds: medians and the least of both and of their difference, as time
and as processor time (of the process and its child).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Times = tuple[float, float]  # on the clock, and of the processor


def opened(model: str) -> Times:
    """Open a file here."""
    from lfm2gguf import Runner

    began = time.perf_counter(), _processor()
    runner = Runner(model, device="cpu")
    took = time.perf_counter() - began[0]
    runner.close()
    return took, _processor() - began[1]


def _processor() -> float:
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def in_a_process(model: Path, cache: str) -> Times:
    """Open it in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(model), "--once"],
        env=os.environ | {"LFM2GGUF_CACHE": cache},
        capture_output=True,
        check=True,
    )
    wall, processor = json.loads(done.stdout)
    return wall, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(opened(str(given.model))))
        return
    pairs = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append([in_a_process(given.model, cache) for _ in range(2)])
    for i, name in enumerate(("clock", "processor")):
        first, second = ([pair[j][i] for pair in pairs] for j in range(2))
        added = [one - other for one, other in zip(first, second, strict=True)]
        found = {
            what: {"median": round(statistics.median(of), 3), "least": round(min(of), 3)}
            for what, of in (("first", first), ("second", second), ("added", added))
        }
        found["of_the_least"] = {"added": round(min(first) - min(second), 3)}
        print(json.dumps({name: found}))


if __name__ == "__main__":
    main()
