"""The project's modules and what each imports, read from their source and not by importing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"lfm2gguf": ROOT, "lfm2gguf_cli": ROOT / "cli"}  # each with the folder it stands in


@dataclass(frozen=True)
class Import:
    """An import, wherever it stands in the file: a module, and a name of it if it says one."""

    module: str
    name: str | None


@dataclass(frozen=True)
class Module:
    """A file of the project under its dotted name."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @property
    def unit(self) -> str:
        """The package it belongs to (see :func:`unit`)."""
        return unit(self.name)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """What it imports of the project, in functions and for type checking too."""
        return tuple(i for i in self._imports() if i.module.split(".")[0] in PACKAGES)

    def _imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}: relative import"
                yield from (_imported(node.module or "", alias.name) for alias in node.names)

    def defined(self) -> set[str]:
        """Return the functions, classes, variables and attributes of ``self`` that it defines."""
        names = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
        return names


def unit(module: str) -> str:
    """``lfm2gguf.quants.legacy`` belongs to ``quants``, ``lfm2gguf_cli.main`` to ``cli``."""
    parts = module.split(".")
    return "cli" if parts[0] == "lfm2gguf_cli" else parts[1] if len(parts) > 1 else ""


def _modules() -> Iterator[Module]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.glob(f"{package}/**/*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield Module(".".join(parts).removesuffix(".__init__"), path)


MODULES = {module.name: module for module in _modules()}


def _imported(module: str, name: str) -> Import:
    """``from lfm2gguf import quants`` imports a module, ``from lfm2gguf.ggml import X`` a name."""
    full = f"{module}.{name}"
    return Import(full, None) if full in MODULES else Import(module, name)


def loops() -> set[frozenset[str]]:
    """Return the sets of modules that reach each other through their imports."""
    graph = {m.name: {i.module for i in m.imports} & MODULES.keys() for m in MODULES.values()}
    reach = {name: _reached(graph, name) for name in graph}
    rings = (frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a])
    return set(rings)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found
