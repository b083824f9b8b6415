"""The tables of examples/fidelity and README, from the lines that the benchmark writes.

python -m tests.benchmarks.fidelity_tables results.jsonl ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PAIRS = (("docs", "docs"), ("wiki", "wiki"), ("docs", "wiki"), ("wiki", "docs"),
         ("docs", "chat"), ("wiki", "chat"))  # fmt: skip
Row = dict[str, Any]


class Results:
    """Lines by type, text calibrated on, text judged on and way of rounding."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {
            (r["type"], r["made"], r["calibrated_on"], r["judged_on"]): r for r in rows
        }  # fmt: skip
        self.types = list(dict.fromkeys(key[0] for key in self._rows))

    def of(self, type: str, pair: tuple[str, str]) -> tuple[Row, Row, Row] | None:
        """Plain, with an importance matrix, and calibrated; None where one was not measured."""
        calibrated, judged = pair
        keys = (("plain", ""), ("imatrix", calibrated), ("calibrated", calibrated))
        found = [self._rows.get((type, *key, judged)) for key in keys]
        plain, weighed, ours = found
        return (plain, weighed, ours) if plain and weighed and ours else None


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * lines[0].count(" |") + "|", *lines[1:]])


def shares(results: Results) -> str:
    """KL divergence as a share of the importance matrix's, by the texts."""

    def cells(type: str) -> Iterator[str]:
        yield type
        for pair in PAIRS:
            found = results.of(type, pair)
            yield f"{found[2]['kld'] / found[1]['kld']:.2f}" if found else ""

    return table(["type", *(", ".join(pair) for pair in PAIRS)], map(cells, results.types))


def in_domain(results: Results) -> str:
    """All figures where both texts are documentation."""
    header = ["type", "bytes imatrix / calibrated", "KLD plain", "imatrix", "calibrated", "99% KLD",
              "same top", "PPL", "CPU s"]  # fmt: skip
    rows = [
        [t, f"{i['nbytes']:,} / {c['nbytes']:,}", *(f"{r['kld']:.6f}" for r in found),
         *versus(i, c), f"{c['seconds']:.0f}"]
        for t in results.types if (found := results.of(t, PAIRS[0]))
        for _, i, c in [found]
    ]  # fmt: skip
    return table(header, rows)


def versus(i: Row, c: Row) -> list[str]:
    return [f"{i['p99']:.4f} / {c['p99']:.4f}", f"{i['top']:.2f}% / {c['top']:.2f}%",
            f"{i['ppl']:.2f} / {c['ppl']:.2f}"]  # fmt: skip


def out_of_domain(results: Results) -> str:
    """The same of every other pair of texts."""
    rows = [
        [t, ", ".join(pair), f"{i['kld']:.6f} / {c['kld']:.6f}", *versus(i, c)]
        for t in results.types
        for pair in PAIRS[1:] if (found := results.of(t, pair))
        for _, i, c in [found]
    ]  # fmt: skip
    return table(["type", "texts", "KLD", "99% KLD", "same top", "PPL"], rows)


def readme(results: Results) -> str:
    """The columns of README's table."""
    rows = [
        [t, *(f"{row['kld']:.4f}" for row in found)]
        for t in results.types if (found := results.of(t, PAIRS[0]))
    ]  # fmt: skip
    return table(["type", "KLD plain", "imatrix", "calibrated"], rows)


def equal_quality(results: Results) -> str:
    """Calibrated files beside plain ones of larger types, in bytes and KL divergence."""
    pairs = (("Q4_0", "Q4_K_M"), ("Q3_K_M", "Q4_0"), ("IQ4_XS", "Q4_K_M"), ("IQ4_XS", "Q5_K_M"),
             ("Q4_K_M", "Q5_K_M"), ("Q5_K_M", "Q6_K"))  # fmt: skip
    rows = []
    for small, large in pairs:
        a, b = results.of(small, PAIRS[0]), results.of(large, PAIRS[0])
        if a and b:
            ours, plain = a[2], b[0]
            rows.append([f"{small} calibrated, {large} plain",
                         f"{ours['nbytes']:,} / {plain['nbytes']:,}",
                         f"{ours['nbytes'] / plain['nbytes'] - 1:+.1%}",
                         f"{ours['kld']:.4f} / {plain['kld']:.4f}"])  # fmt: skip
    return table(["files", "bytes", "", "KLD"], rows)


def main(*paths: str) -> None:
    """Print the tables."""
    lines = [line for path in paths for line in Path(path).read_text("utf-8").splitlines()]
    results = Results(json.loads(line) for line in lines)
    for part in (shares, in_domain, out_of_domain, equal_quality, readme):
        print(f"{part.__doc__}\n\n{part(results)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
