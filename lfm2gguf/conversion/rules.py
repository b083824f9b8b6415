"""The mixtures of src/llama-quant.cpp as tables (llama.cpp commit 0c1e57098).

``llama_tensor_get_type_impl`` gives some tensors another type than the file's default, by what
they are for, their place, and the model. Rules are tried in order; the first that applies holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lfm2gguf.ggml import FileType, GGMLType

F, G = FileType, GGMLType


@dataclass(frozen=True)
class Place:
    """A tensor's place: the i-th of n of its kind, and of what model.

    ``n_gqa`` is how many query heads share a key and value head in the first layer, as
    llama.cpp counts (0 where that layer is a convolution), ``importance`` whether there is an
    importance matrix.
    """

    i: int
    n: int
    n_experts: int = 0
    n_gqa: int = 0
    importance: bool = False


@dataclass(frozen=True)
class Rule:
    """``type`` for those tensors at whose place ``applies`` says so."""

    type: GGMLType
    applies: Callable[[Place], bool] = lambda place: True


def _more_bits(p: Place) -> bool:
    """The first and last eighth, and every third in between."""
    return p.i < p.n // 8 or p.i >= 7 * p.n // 8 or (p.i - p.n // 8) % 3 == 2


def _first_eighth(p: Place) -> bool:
    return p.i < p.n // 8


def _middle(p: Place) -> bool:
    return p.n // 8 <= p.i < 7 * p.n // 8


def _shared(p: Place) -> bool:
    return p.n_gqa >= 4


def _shared_or_experts(p: Place) -> bool:
    return p.n_gqa >= 4 or p.n_experts >= 4


def _eight_experts(p: Place) -> bool:
    return p.n_experts == 8


def _no_importance(p: Place) -> bool:
    return not p.importance


# Files of less than three bits a weight have rules apart: they count blocks in order, also where
# there are experts, and give these no Q8_0.
LOW = (F.IQ2_XXS, F.IQ2_XS, F.IQ2_S, F.IQ2_M, F.IQ1_S, F.IQ1_M)

_EIGHT = Rule(G.Q8_0, _eight_experts)
_ATTENTION_VALUE = {
    F.Q2_K: [Rule(G.Q4_K, _shared), Rule(G.Q3_K)],
    F.Q2_K_S: [Rule(G.Q4_K, _shared)],
    F.IQ3_XXS: [Rule(G.Q4_K, _shared), Rule(G.IQ3_S, _no_importance)],
    F.IQ3_XS: [Rule(G.Q4_K, _shared)],
    F.IQ3_S: [Rule(G.Q4_K, _shared)],
    F.IQ3_M: [Rule(G.Q4_K)],
    F.Q3_K_M: [Rule(G.Q5_K, lambda p: p.i < 2), Rule(G.Q4_K)],
    F.Q3_K_L: [Rule(G.Q5_K)],
    F.IQ4_NL: [Rule(G.Q5_K, _shared)],
    F.IQ4_XS: [Rule(G.Q5_K, _shared)],
    F.Q4_K_M: [Rule(G.Q6_K, _more_bits)],
    F.Q5_K_M: [Rule(G.Q6_K, _more_bits)],
    F.Q4_K_S: [Rule(G.Q5_K, lambda p: p.i < 4)],
}
_DOWN = {
    F.Q2_K: [Rule(G.Q3_K)],
    F.Q2_K_S: [Rule(G.Q4_K, _first_eighth)],
    F.IQ3_XXS: [
        Rule(G.Q4_K, lambda p: _no_importance(p) and _first_eighth(p)),
        Rule(G.Q3_K, _no_importance),
    ],
    F.Q3_K_M: [Rule(G.Q5_K, lambda p: p.i < p.n // 16), Rule(G.Q4_K)],
    F.IQ3_M: [Rule(G.Q4_K, lambda p: _first_eighth(p) or (_eight_experts(p) and _more_bits(p)))],
    F.Q3_K_L: [Rule(G.Q5_K)],
    F.Q4_K_M: [Rule(G.Q6_K, _more_bits)],
    F.Q5_K_M: [Rule(G.Q6_K, _more_bits)],
    F.Q4_K_S: [Rule(G.Q5_K, _first_eighth)],
    F.IQ4_NL: [Rule(G.Q5_K, lambda p: _no_importance(p) and _first_eighth(p))],
    F.IQ4_XS: [Rule(G.Q5_K, lambda p: _no_importance(p) and _first_eighth(p))],
    F.Q4_0: [Rule(G.Q4_1, lambda p: p.importance and _first_eighth(p))],
    F.Q5_0: [Rule(G.Q5_1, lambda p: p.importance and _first_eighth(p))],
}
_ATTENTION_OUTPUT = {
    F.Q2_K: G.Q3_K,
    F.IQ3_XXS: G.IQ3_S,
    F.Q3_K_M: G.Q4_K,
    F.Q3_K_L: G.Q5_K,
    F.IQ3_M: G.Q4_K,
}
# With eight experts attention is small beside them, and gets more bits, in these files.
_ATTENTION_OUTPUT_OF_EIGHT = (
    F.Q2_K,
    F.IQ3_XS,
    F.IQ3_XXS,
    F.Q3_K_S,
    F.Q3_K_M,
    F.IQ4_NL,
    F.Q4_K_S,
    F.Q4_K_M,
    F.IQ3_S,
    F.IQ3_M,
    F.IQ4_XS,
)
_QUERY = {F.IQ3_XS: [Rule(G.IQ3_XXS)], F.IQ3_XXS: [Rule(G.IQ2_S)]}
_UP = {F.IQ3_XS: [Rule(G.IQ3_XXS, _middle)]}


def _low(file: FileType, kind: str) -> list[Rule]:
    """The rules of the files in :data:`LOW`."""
    more = G.IQ3_S if file in (F.IQ2_S, F.IQ2_M) else G.Q2_K
    if kind == "attn_v":
        return [Rule(G.Q4_K, _shared_or_experts), Rule(more)]
    if kind == "attn_k":
        return [Rule(G.Q4_K, _eight_experts)]
    if kind == "ffn_down":
        return [Rule(more, _first_eighth)]
    if kind == "attn_output":
        output = {F.IQ1_S: G.IQ2_XXS, F.IQ1_M: G.IQ2_XXS, F.IQ2_S: G.IQ3_S, F.IQ2_M: G.IQ3_S}
        rest = [Rule(output[file])] if file in output else []
        return [Rule(G.Q5_K, _eight_experts), *rest]
    return []


def _usual(file: FileType, kind: str) -> list[Rule]:
    """The rules of all other files."""
    if kind == "attn_v":
        return [_EIGHT, *_ATTENTION_VALUE.get(file, [])]
    if kind == "attn_k":
        return [_EIGHT, *_QUERY.get(file, [])]
    if kind == "attn_output":
        eight = Rule(G.Q5_K, _eight_experts)
        other = Rule(_ATTENTION_OUTPUT.get(file, file.default), lambda p: not _eight_experts(p))
        return [eight, other] if file in _ATTENTION_OUTPUT_OF_EIGHT else [other]
    tables = {"attn_q": _QUERY, "ffn_down": _DOWN, "ffn_gate": _UP, "ffn_up": _UP}
    return tables[kind].get(file, []) if kind in tables else []


KINDS = ("attn_v", "attn_k", "attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
RULES = {(f, k): (_low if f in LOW else _usual)(f, k) for f in FileType for k in KINDS}

# The output projection decides over every token; all but these files give it six bits or eight.
OUTPUT_OF_FIVE = (*LOW, F.IQ3_XXS)
# The embedding where it is not the output as well.
EMBEDDING = {
    **dict.fromkeys((F.IQ2_XXS, F.IQ2_XS, F.IQ1_S, F.IQ1_M), G.Q2_K),
    **dict.fromkeys((F.IQ2_S, F.IQ2_M, F.IQ3_XXS), G.IQ3_S),
    **dict.fromkeys((F.TQ1_0, F.TQ2_0, F.Q2_0), G.Q4_K),
}

# Types for rows that do not divide into a type's blocks (``tensor_type_fallback``).
FALLBACK = {
    **dict.fromkeys((G.IQ1_S, G.IQ1_M, G.IQ2_XXS, G.IQ2_XS, G.IQ2_S), G.IQ4_NL),
    **dict.fromkeys((G.IQ3_XXS, G.IQ3_S, G.IQ4_XS), G.IQ4_NL),
    **dict.fromkeys((G.Q2_0, G.Q2_K, G.Q3_K, G.TQ1_0, G.TQ2_0), G.Q4_0),
    G.Q4_K: G.Q5_0,
    G.Q5_K: G.Q5_1,
    G.Q6_K: G.Q8_0,
}

# Types that llama-quantize refuses without importance (``tensor_requires_imatrix``); also Q2_K
# in a file of Q2_K_S. The embedding and the output are exempt.
NEED_IMPORTANCE = (G.IQ3_XXS, G.IQ2_XXS, G.IQ2_XS, G.IQ2_S, G.IQ1_M, G.IQ1_S)
