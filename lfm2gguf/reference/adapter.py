"""A LoRA adapter in the reference: a checkpoint's weights with what training changed.

What peft computes (``tuners/lora/layer.py``, ``variants.py``, 0.21), written a second time: the
merge that converts takes no part, so that one mistake cannot cancel another. What the two share
is how a folder is read (``checkpoint/adapter.py``): which name is a factor's, which pairs belong
together. Factors are small and are kept; weights are read as ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from lfm2gguf.checkpoint import Adapter, TensorInfo, trained_name, unwrapped
from lfm2gguf.errors import TensorError
from lfm2gguf.reference.weights import EMBEDDING, HEAD, Array, Weights

# Changes rows start:stop of a weight's first axis.
Change: TypeAlias = Callable[[Array, int, int], Array]

EXPERT = re.compile(r"(?P<experts>.+\.experts)\.(?P<i>\d+)\.(?P<matrix>w[123])")
PACKED = re.compile(r"(?P<experts>.+\.experts)(\.base_layer)*")
LACKING = "which the base model lacks; is it the adapter of another model?"
ROWS = 8192  # of an embedding whose columns are measured, at a time


@dataclass(frozen=True)
class AdaptedWeights(Weights):
    """Weights with an adapter in them; ``changed`` names those that are not the base's."""

    base: Weights
    changed: frozenset[str]


def adapted(base: Weights, adapter: Adapter, *, has_head: bool = True) -> AdaptedWeights:
    """Return the weights as peft merges them.

    The adapter's names are those of the text model alone, with ``model.`` or without; ``has_head``
    says whether that predicts text.

    Raises:
        TensorError: a part of the adapter belongs to no weight of the base, or does not fit it.
        UnsupportedError: an activated LoRA, which cannot be merged.

    """
    adapter.check_merge()
    names = {unwrapped(name, has_head=True): info for name, info in adapter.tensors.items()}
    adapter = replace(adapter, tensors=names)
    shapes, saved = dict(base.shapes), {**adapter.base_layers, **adapter.saved}
    changes: dict[str, list[Change]] = {}
    for name, change in _changes(base, adapter):
        if name not in (*shapes, HEAD):
            raise TensorError(f"{adapter.path}: a part is for {name}, {LACKING}")
        changes.setdefault(name, []).append(change)
    for name, info in saved.items():
        if name not in (*shapes, HEAD):
            raise TensorError(f"{adapter.path}: holds {name}, {LACKING}")
        shapes[name] = info.shape
    if has_head and HEAD not in shapes and _untied(base, adapter, changes):
        shapes[HEAD] = shapes[EMBEDDING] if _grown(base, saved) else base.shapes[EMBEDDING]

    def unchanged(name: str, start: int, stop: int) -> Array:
        if name == HEAD and name not in {*saved, *base.shapes}:
            name = EMBEDDING  # what it was tied to
            if not _grown(base, saved):
                return base.read_rows(name, start, stop)
        return saved[name].read(start, stop) if name in saved else base.read_rows(name, start, stop)

    def read(name: str, start: int, stop: int) -> Array:
        rows = unchanged(name, start, stop)
        for change in changes.get(name, ()):
            rows = change(np.array(rows), start, stop)
        return rows

    changed = frozenset({*changes, *saved})
    return AdaptedWeights(base.config, shapes, read, base, changed)


def _grown(base: Weights, saved: Mapping[str, TensorInfo]) -> bool:
    return EMBEDDING in saved and saved[EMBEDDING].shape != base.shapes[EMBEDDING]


def _untied(base: Weights, adapter: Adapter, changes: Mapping[str, Any]) -> bool:
    """Say whether embedding and head, tied in the base, are no longer the same weight.

    peft wraps the module that is named, and leaves the other one with the weight they had.
    """
    together = adapter.config.get("ensure_weight_tying") and HEAD not in changes
    if together or not base.config.tied:
        return False
    trained = adapter.config.get("modules_to_save") or ()
    embedding = "embed_tokens" in trained and not _grown(base, adapter.saved)
    return embedding or "lm_head" in trained or EMBEDDING in changes or HEAD in changes


def _changes(base: Weights, adapter: Adapter) -> Iterator[tuple[str, Change]]:
    """Yield each weight that the adapter adds to, and how."""
    for module in adapter.factors:
        factors = {kind: info.read() for kind, info in adapter.factors[module].items()}
        if packed := PACKED.fullmatch(module):
            yield from _packed(base, adapter, packed["experts"], *adapter.pair(module))
        elif expert := EXPERT.fullmatch(module):
            name = f"{expert['experts']}.{expert['matrix']}.weight"
            yield name, _of_expert(int(expert["i"]), _linear(adapter, module, factors))
        elif "lora_embedding_A" in factors:
            yield f"{module}.weight", _embedding(base, adapter, module, factors)
        else:
            yield f"{module}.weight", _linear(adapter, module, factors)


def _linear(adapter: Adapter, module: str, factors: Mapping[str, Array]) -> Change:
    """Return ``W + s B A``; DoRA then gives every row the length that was trained."""
    of_a, _ = adapter.pair(module)
    a, b = factors["lora_A"], factors["lora_B"]
    scale = _scale(adapter, trained_name(of_a), len(a))
    lengths = factors.get("lora_magnitude_vector")

    def change(rows: Array, start: int, stop: int) -> Array:
        rows += _product(b[start:stop], a, scale, rows.shape, module)
        if lengths is not None:
            rows *= (lengths[start:stop] / np.linalg.norm(rows, axis=1))[:, None]
        return rows

    return change


def _embedding(
    base: Weights, adapter: Adapter, module: str, factors: Mapping[str, Array]
) -> Change:
    """Return ``W + s (B A)ᵀ``, a row a token; with DoRA every column has a trained length."""
    of_a, _ = adapter.pair(module)
    a, b = factors["lora_embedding_A"], factors["lora_embedding_B"]
    scale = _scale(adapter, trained_name(of_a), len(a))
    lengths = factors.get("lora_magnitude_vector")

    def added(rows: Array, start: int, stop: int) -> Array:
        return rows + _product(a.T[start:stop], b.T, scale, rows.shape, module)

    @cache
    def columns() -> Array:
        count = base.shapes[EMBEDDING][0]
        squares = np.zeros(len(b))
        for start in range(0, count, ROWS):
            stop = min(start + ROWS, count)
            part = added(base.read_rows(EMBEDDING, start, stop), start, stop)
            squares += np.square(part, dtype=np.float64).sum(axis=0)
        return np.sqrt(squares).astype(np.float32)

    def change(rows: Array, start: int, stop: int) -> Array:
        rows = added(rows, start, stop)
        return rows if lengths is None else rows * (lengths / columns())

    return change


def _of_expert(i: int, change: Change) -> Change:
    """Return the change of one matrix as one of a stack of them."""

    def stacked(rows: Array, start: int, stop: int) -> Array:
        if start <= i < stop:
            rows[i - start] = change(rows[i - start], 0, rows.shape[1])
        return rows

    return stacked


def _packed(
    base: Weights, adapter: Adapter, experts: str, of_a: TensorInfo, of_b: TensorInfo
) -> Iterator[tuple[str, Change]]:
    """Yield the changes of packed experts (peft's ``target_parameters``): gate and up, or down.

    A is (experts, rank, columns), B is (rows, rank, experts); peft before 0.18 took rows for
    columns.
    """
    if f"{experts}.w1.weight" not in base.shapes:
        raise TensorError(f"{adapter.path}: a part is for {experts}, {LACKING}")
    count, width, hidden = base.shapes[f"{experts}.w1.weight"]
    a = of_a.read().reshape(count, -1, of_a.shape[1])
    b = of_b.read().reshape(of_b.shape[0], -1, count)
    found = (len(b), a.shape[2])
    gate_up, down = (2 * width, hidden), (hidden, width)
    if found not in (gate_up, down, gate_up[::-1], down[::-1]):
        raise TensorError(
            f"{adapter.path}: the factors of {experts} make up {found}, which is "
            "neither of the experts' matrices; is it the adapter of another model?"
        )
    across = found not in (gate_up, down)
    is_down = (found[::-1] if across else found) == down
    name = "down_proj" if is_down else "gate_up_proj"
    trained = PACKED.fullmatch(trained_name(of_a))
    pattern = f"{trained['experts'] if trained else experts}.{name}"
    scale = np.float32(_scale(adapter, pattern, a.shape[1]))

    def change(rows: Array, start: int, stop: int, matrix: slice = slice(None)) -> Array:
        for i in range(start, stop):
            delta = scale * (b[:, :, i] @ a[i])
            rows[i - start] += (delta.T if across else delta)[matrix]
        return rows

    if is_down:
        yield f"{experts}.w2.weight", change
    else:
        yield f"{experts}.w1.weight", lambda x, m, n: change(x, m, n, slice(width))
        yield f"{experts}.w3.weight", lambda x, m, n: change(x, m, n, slice(width, None))


def _product(left: Array, right: Array, scale: float, shape: tuple[int, ...], of: str) -> Array:
    if (len(left), right.shape[-1]) != shape or left.shape[-1] != len(right):
        raise TensorError(
            f"{of}: the adapter's factors do not make up the weight's {shape}; is it another "
            "model's adapter?"
        )
    product: Array = np.float32(scale) * (left @ right)
    return product


def _scale(adapter: Adapter, module: str, rank: int) -> float:
    """Return alpha over the rank, or its root (rsLoRA); alpha may have a pattern of its own."""
    config = adapter.config
    patterns = config.get("alpha_pattern") or {}
    own = [patterns[p] for p in patterns if re.match(rf"(.*\.)?({p})$", module)]
    alpha = float(own[0] if own else config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
