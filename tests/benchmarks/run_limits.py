"""What rounding may do to a run of 32 weights at worst: what ``TensorLimits.run`` rests on.

    python -m tests.benchmarks.run_limits

For each quantized type, random weights of several kinds under importance of several kinds: the
error of the whole relative to its size, that in units of plain rounding's, and of the worst run.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize
from lfm2gguf.verification.measure.tensors import QUIET, RUN

SHAPE = (256, 1024)


def kinds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights as models have them, and worse."""
    normal, columns = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE[1])
    return {
        "normal": normal,
        "heavy tails": rng.standard_t(4, SHAPE),
        "heavier": rng.standard_t(3, SHAPE),
        "columns differ": normal * np.exp(0.5 * columns),
        "columns differ much": normal * np.exp(columns),
    }


def importances(rng: np.random.Generator) -> dict[str, np.ndarray | None]:
    """Importance of columns: none, equal, and log-normal."""
    columns = rng.standard_normal(SHAPE[1])
    spread = {f"exp({s} N)": np.exp(s * columns).astype(np.float32) for s in (1, 2)}
    return {"none": None, "equal": np.ones(SHAPE[1], np.float32), **spread}


def main() -> None:
    """Print a line for each type and kind of weights."""
    rng = np.random.default_rng(0)
    weights = {name: x.astype(np.float32) for name, x in kinds(rng).items()}
    matrices = importances(rng)
    for type in (t for t in GGMLType if t in CODECS and t.is_quantized):
        for name, x in weights.items():
            cells, plain = [], 0.0
            power = (x.reshape(-1, RUN) ** 2).mean(1)
            for kind, matrix in matrices.items():
                if matrix is None and CODECS[type].needs_importance:
                    continue
                error = dequantize(quantize(x, type, matrix), type, x.shape) - x
                whole = float(np.linalg.norm(error) / np.linalg.norm(x))
                plain = plain or whole
                runs = (error.reshape(-1, RUN) ** 2).mean(1)
                worst = np.sqrt((runs / np.maximum(power, QUIET * power.mean())).max())
                cells.append(f"{kind} {whole:.3f} x{whole / plain:.2f} run {worst:.2f}")
            print(f"{type.name:7} {name:20}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
