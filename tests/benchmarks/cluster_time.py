"""A matrix, a conversion, a calibration and a ladder on workers of a local Dask cluster.

    python -m tests.benchmarks.cluster_time CHECKPOINT [--workers 1 2] [--chunks 8] [--rounds 2]

Needs ``pip install "dask[distributed]"``. Each worker is a process with one thread, and shares the
file system alone with the others; so that one and two of them can be compared, the caller has one
job, too. The matrix is of eight times as many chunks, since its pieces are of 16,384 tokens. Prints
seconds by the clock, the least of all rounds, by turns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import lfm2gguf
from lfm2gguf.verification import Material

TYPES = ["Q4_K_M", "Q6_K", "Q8_0"]


@contextmanager
def workers(count: int, folder: Path) -> Iterator[Executor]:
    """A local cluster's executor."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None,
            local_directory=str(folder),
        ) as local,
        Client(local) as client,
    ):  # fmt: skip
        yield client.get_executor()


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(checkpoint: Path, executor: Executor, chunks: int, out: Path) -> dict[str, float]:
    """Seconds of each work."""

    def imatrix() -> None:
        lfm2gguf.collect_imatrix(checkpoint, chunks=8 * chunks, executor=executor)

    def convert() -> None:
        plan = lfm2gguf.plan(checkpoint, out, TYPES)
        plan.write(executor=executor, jobs=1, overwrite=True)

    def calibrate() -> None:
        lfm2gguf.calibrate(
            checkpoint, out / "calibrated.gguf", "Q4_K_M", chunks=chunks, own_text=0,
            executor=executor, jobs=1, overwrite=True,
        )  # fmt: skip

    def verify() -> None:
        files = sorted(out.glob("*-Q*.gguf"))
        lfm2gguf.verify(files, checkpoint, material=Material(chunks=1), executor=executor)

    return {act.__name__: timed(act) for act in (imatrix, convert, calibrate, verify)}


def main() -> None:
    """Measure by turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    best: dict[int, dict[str, float]] = {count: {} for count in arguments.workers}
    with tempfile.TemporaryDirectory() as name:
        os.environ["LFM2GGUF_CACHE"] = name
        for _ in range(arguments.rounds):
            for count in arguments.workers:
                folder = Path(name)
                with workers(count, folder / "dask") as executor:
                    (folder / "out").mkdir(exist_ok=True)
                    found = measure(
                        arguments.checkpoint, executor, arguments.chunks, folder / "out"
                    )
                for work, seconds in found.items():
                    best[count][work] = min(seconds, best[count].get(work, seconds))
    print("| workers |", *(f"{work} |" for work in found))
    for count, seconds in best.items():
        print(f"| {count} |", *(f"{value:.1f} s |" for value in seconds.values()))


if __name__ == "__main__":
    main()
