"""Make lfm2gguf/quants/grids.npz: the points of ggml's grids, from its source.

``python -m tests.golden.make_grids LLAMA_CPP``, with llama.cpp's source (commit 0c1e57098).

ggml/src/ggml-quants.c has each grid as points of levels, two or three bits each, low bits
first; ggml-common.h has the same points in the same order as the weights they stand for, which
is checked here. Only the points are kept: 9 KB.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[2] / "lfm2gguf" / "quants" / "grids.npz"

# Our name: ggml's points, ggml's weights, bits of a level, weights of the levels.
GRIDS = {
    "iq2_xxs": ("kgrid_2bit_256", "iq2xxs_grid", 2, (8, 25, 43)),
    "iq2_xs": ("kgrid_2bit_512", "iq2xs_grid", 2, (8, 25, 43)),
    "iq2_s": ("kgrid_2bit_1024", "iq2s_grid", 2, (8, 25, 43)),
    "iq1": ("kgrid_1bit_2048", "iq1s_grid", 2, (-1, 0, 1)),
    "iq3_xxs": ("kgrid_256", "iq3xxs_grid", 3, (4, 12, 20, 28, 36, 44, 52, 62)),
    "iq3_s": ("kgrid_512", "iq3s_grid", 3, (1, 3, 5, 7, 9, 11, 13, 15)),
}


def numbers(text: str, pattern: str) -> list[int]:
    match = re.search(pattern + r"(.*?)(?:\};|GGML_TABLE_END)", text, re.DOTALL)
    assert match, pattern
    return [int(number, 0) for number in re.findall(r"0x[0-9a-f]+|\d+", match[1])]


def main(llama_cpp: Path) -> None:
    source = llama_cpp / "ggml" / "src"
    quants, common = ((source / f).read_text() for f in ("ggml-quants.c", "ggml-common.h"))
    grids = {}
    for name, (points, weights, bits, values) in GRIDS.items():
        codes = numbers(quants, rf"static const uint16_t {points}\[\w+\] = {{")
        size = 16 // bits if bits == 2 else 4
        stored = numbers(common, rf"GGML_TABLE_BEGIN\(\w+, {weights}, \w+\)")
        bytes_of = np.array(stored, f"<u{size}").view(np.int8).reshape(-1, size)
        levels = np.array(codes)[:, None] >> bits * np.arange(size) & (1 << bits) - 1
        assert np.array_equal(np.array(values)[levels], bytes_of), name
        grids[name] = np.array(codes, np.uint16)
    np.savez_compressed(TARGET, **grids)
    shutil.copy(llama_cpp / "LICENSE", TARGET.with_name("grids.LICENSE"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
