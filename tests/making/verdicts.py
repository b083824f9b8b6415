"""Judging one file as ``verify`` does, without its command line."""

from __future__ import annotations

from pathlib import Path

from lfm2gguf.verification import Engine, Session, Verification


def judged(
    session: Session, path: Path, *, engine: str = "numpy", three_way: bool = False
) -> Verification:
    """Judge a file by the limits of its type, on one thread and by NumPy unless told otherwise."""
    threads = None if engine == "numpy" else 1
    return session.judge(path, engine=Engine(engine, threads=threads, three_way=three_way))


def failed(result: Verification) -> set[str]:
    """Return the titles of the gates that did not pass."""
    return {gate.title for gate in result.failures}
