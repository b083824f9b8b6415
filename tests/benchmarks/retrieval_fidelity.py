"""What calibration leaves of what a retrieval model's vectors lose, on text kept aside.

    python -m tests.benchmarks.retrieval_fidelity --text FILE ... [--types Q4_0 Q4_K_M]

The models are the example under each kind's settings (tests/making/retrieval_example.py), untrained
for retrieval. Prints the mean cosine distance of the calibrated file's vectors from the
checkpoint's, of the plain file's, and their ratio, both by the reference's forward pass.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import lfm2gguf
from tests.making.retrieval_example import KINDS, make_example


def main() -> None:
    """Calibrate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", nargs="+", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=["Q4_0", "Q4_K_M"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, kind in KINDS.items():
            source = make_example(kind, Path(scratch, name))
            for type in given.types:
                made = lfm2gguf.calibrate(
                    source, Path(scratch, "a.gguf"), type, texts=given.text, overwrite=True
                )
                found = made.judgement
                print(
                    f"{name:16}{type:8} {found.calibrated:.6f} of {found.plain:.6f}: "
                    f"{found.ratio:.2f} ({found.tokens} positions)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
