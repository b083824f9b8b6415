"""How far long work has come: one report and one callback, whatever the work is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """A report on long work: conversion, verification or benchmark.

    ``done`` and ``total`` count ``unit`` (weights, sequences, runs). ``stage`` names the part of
    the work and ``note`` what it has just come to. A new stage may count anew or go on.
    """

    stage: str
    done: int
    total: int
    unit: str
    note: str = ""
    left: float | None = None  # seconds, where the work knows better than its pace so far tells


ProgressCallback: TypeAlias = Callable[[Progress], None]
Count: TypeAlias = Callable[[int, int], None]  # how many are done, and of how many


def counting(progress: ProgressCallback | None, stage: str, unit: str) -> Count | None:
    """Return a callback for one stage, to be called with the counts alone."""
    if progress is None:
        return None
    return lambda done, total: progress(Progress(stage, done, total, unit))
