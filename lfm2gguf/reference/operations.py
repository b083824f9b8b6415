"""What LFM2's layers compute between their products, in float32 as transformers does.

The source is transformers' ``models/lfm2/modeling_lfm2.py``, version 5. T tokens of a sequence, H
hidden, D head.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.reference.weights import Array

SCORE_BYTES = 16 << 20  # attention scores of one block of queries


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Compute ``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
    square = np.einsum("...i,...i->...", x, x) / np.float32(x.shape[-1])
    scale = 1 / np.sqrt(square + np.float32(eps))
    normed: Array = x * scale[..., None]
    normed *= weight
    return normed


def swiglu(gate: Array, up: Array) -> None:
    """Set ``gate = silu(gate) * up``, a few rows at a time so that they stay in cache."""
    rows = max(1, (1 << 17) // gate.shape[1])
    scratch = np.empty((rows, gate.shape[1]), np.float32)
    with np.errstate(over="ignore"):  # exp(-g) = inf gives silu(g) = -0, as it should
        for start in range(0, len(gate), rows):
            g = gate[start : start + rows]
            e = np.negative(g, out=scratch[: len(g)])
            np.exp(e, out=e)
            e += 1
            g /= e
            g *= up[start : start + rows]


def causal_convolution(x: Array, kernel: Array) -> Array:
    """Convolve (T, H) with (H, L) depthwise; the last tap meets the current token."""
    taps = kernel.shape[1]
    y: Array = x * kernel[:, -1]
    for back in range(1, min(taps, len(x))):
        y[back:] += x[:-back] * kernel[:, taps - 1 - back]
    return y


def rotary_tables(length: int, width: int, theta: float) -> tuple[Array, Array]:
    """Compute cosine and sine (T, D/2) of each position, in float32 as transformers does."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate (T, heads, D) by its positions; the pairs are a head's two halves."""
    half = x.shape[-1] // 2
    cos, sin = cos[: len(x), None], sin[: len(x), None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """Attend in one sequence: q (T, heads, D), k and v (T, kv_heads, D) -> (T, heads * D)."""
    tokens, heads, width = q.shape
    kv_heads = k.shape[1]
    shape = (kv_heads, heads // kv_heads)
    queries = (q * np.float32(width**-0.5)).reshape(tokens, *shape, width).transpose(1, 2, 0, 3)
    keys = np.ascontiguousarray(k.transpose(1, 2, 0))  # (kv_heads, D, T)
    values = np.ascontiguousarray(v.transpose(1, 0, 2))  # (kv_heads, T, D)
    out = np.empty((tokens, *shape, width), np.float32)
    block = max(1, min(256, SCORE_BYTES // (4 * heads * tokens)))
    future = np.triu(np.full((block, block), -np.inf, np.float32), 1)
    for start in range(0, tokens, block):
        stop = min(start + block, tokens)
        n = stop - start
        # The query heads of a key head are stacked, so that each key head is one product.
        scores = queries[:, :, start:stop].reshape(kv_heads, -1, width) @ keys[:, :, :stop]
        scores.reshape(*shape, n, stop)[..., start:] += future[:n, :n]
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        mixed = scores @ values[:, :stop]
        mixed /= scores.sum(axis=-1, keepdims=True)
        out[start:stop] = mixed.reshape(*shape, n, width).transpose(2, 0, 1, 3)
    return out.reshape(tokens, heads * width)
