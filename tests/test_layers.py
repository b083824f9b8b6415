"""How the packages hang together: which may import which, and through which names."""

from __future__ import annotations

import ast

from tests.making.imports import MODULES, loops, unit

LAYERS = [
    [
        "blas",
        "caches",
        "crew",
        "deferred",
        "errors",
        "executors",
        "ggml",
        "install",
        "json_text",
        "members",
        "numeric",
        "options",
        "progress",
        "sampling",
        "several",
        "text_file",
        "version",
    ],
    ["llamacpp", "quants"],
    ["storage"],
    ["checkpoint", "gguf_file", "rendering"],
    ["chat", "imatrix", "lfm2", "reference"],
    ["loadable"],
    ["conversion", "doctor", "runner", "verification"],
    ["bench", "calibration", "export", "server"],
    ["allocation", "publication"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BASE = set(LAYERS[0])  # plain tables, which may know each other

# Modules below a face that others use by name all the same, and why.
OPEN = {
    "lfm2gguf.bench.report": "the shapes of a report; only the command chooses among them",
    "lfm2gguf.verification.report": "the same, and who calls verify() loads none of them",
}


def test_imports_point_downward() -> None:
    """Packages of one layer do not import each other: what two need moves down."""
    checked = 0
    for module in MODULES.values():
        if module.name == "lfm2gguf":
            continue  # the public API: names from everywhere, loaded when used
        for target in (unit(i.module) for i in module.imports):
            rank = RANK[module.unit]
            lower = RANK.get(target, len(LAYERS)) < rank if target else module.unit == "cli"
            allowed = target == module.unit or lower or {module.unit, target} <= BASE
            assert allowed, f"{module.name} imports {target or 'lfm2gguf'}"
            checked += 1
    assert checked > 50


def test_every_package_has_a_layer() -> None:
    assert {module.unit for module in MODULES.values()} <= {"", *RANK}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not loops()


def test_the_reference_and_the_converter_share_nothing() -> None:
    """A mistake that both made would cancel itself in the comparison."""
    for one, other in (("lfm2", "reference"), ("reference", "lfm2")):
        modules = [module for module in MODULES.values() if module.unit == one]
        assert modules
        assert not [m.name for m in modules if other in {unit(i.module) for i in m.imports}]


def test_packages_are_used_through_their_faces() -> None:
    with_face = {m.name for m in MODULES.values() if m.path.name == "__init__.py"
                 and "__all__" in m.defined()}  # fmt: skip
    found = set()
    for module in MODULES.values():
        for target in {i.module for i in module.imports}:
            package = ".".join(target.split(".")[:2])
            inside = target != package and package in with_face
            if inside and unit(target) != module.unit and module.name != "lfm2gguf":
                found.add((module.unit, target))
    found = {(who, what) for who, what in found if not what.startswith(tuple(OPEN))}
    assert not found, "import it from the package"


def test_no_private_name_is_used_across_packages() -> None:
    """Neither imported nor reached for: ``_x`` of another object must be the package's own."""
    own: dict[str, set[str]] = {}
    for module in MODULES.values():
        own.setdefault(module.unit, set()).update(module.defined())
    for module in MODULES.values():
        for i in module.imports:
            private = (i.name or i.module.split(".")[-1]).startswith("_")
            dunder = (i.name or "").startswith("__")
            assert not private or dunder or unit(i.module) == module.unit, (module.name, i)
        for name in reached(module.tree):
            assert name in own[module.unit], f"{module.name} reaches for {name}"


def reached(tree: ast.Module) -> set[str]:
    """Private attributes of something other than ``self``."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
