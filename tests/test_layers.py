"""Imports point downward only, and packages of one layer do not import each other."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    ["errors", "ggml", "options", "progress", "version"],
    ["quants", "llamacpp"],
    ["storage"],
    ["checkpoint", "gguf_file", "rendering"],
    ["chat", "imatrix", "lfm2", "reference"],
    ["conversion", "doctor", "runner", "verification"],
    ["bench", "export", "server"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BASE = set(LAYERS[0])  # plain tables, which may know each other
    "errors",
    "ggml",
    "options",
    "progress",
    "version",
}  # plain tables, which may know each other


def unit(module: str) -> str:
    """``lfm2gguf.quants.legacy`` belongs to ``quants``, ``lfm2gguf_cli.main`` to ``cli``."""
    parts = module.split(".")
    return "cli" if parts[0] == "lfm2gguf_cli" else parts[1] if len(parts) > 1 else ""


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            own = node.module == "lfm2gguf"  # from lfm2gguf import quants
            found |= {f"lfm2gguf.{a.name}" for a in node.names} if own else {node.module or ""}
    return {name for name in found if name.split(".")[0] in ("lfm2gguf", "lfm2gguf_cli")}


def test_imports_point_downward() -> None:
    checked = 0
    for path in [*ROOT.glob("lfm2gguf/**/*.py"), *ROOT.glob("cli/lfm2gguf_cli/**/*.py")]:
        importer = unit(".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("cli."))
        if importer == "__init__":
            continue  # the public API: names from everywhere, loaded when used
        for target in map(unit, imported(path)):
            lower = RANK.get(target, len(LAYERS)) < RANK[importer] if target else importer == "cli"
            assert target == importer or lower or {importer, target} <= BASE, (path, target)
            checked += 1
    assert checked > 50
