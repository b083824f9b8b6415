"""What a good file of each type measures at most, and so what a file is held to.

Chosen from two kinds of good files, with room for other models and texts:

- the example model of this repository on three texts (examples/ci/README.md has the table);
- llama.cpp's own table for Llama 3 8B, the least forgiving of the published ones
  (tools/perplexity/README.md, commit 0c1e57098): Q8_0 0.0014, Q6_K 0.0055, Q5_K_M 0.0108,
  Q5_K_S 0.0166, Q4_K_M 0.0313, Q4_K_S 0.0431, Q4_0 0.0719 nats.

Limits of the mean KL divergence are about 1.5 times the larger of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lfm2gguf.errors import OptionError

WORST_CHUNK = 2.0  # times max_kld; the worst chunk of good files was 1.2 to 1.5 times the mean
WORST_TEXT = 2.5  # times 1 - min_cosine; the worst text of good files was at most 1.2 times it

AnyLimits = TypeVar("AnyLimits", "Limits", "SimilarityLimits")


@dataclass(frozen=True)
class Limits:
    """The limits of one verification; shares are between 0 and 1, divergences in nats."""

    max_ppl_increase: float
    max_kld: float
    min_top1: float

    @classmethod
    def choose(cls, type: str, **asked: float | None) -> Limits:
        """The limits that are given, and the type's defaults for the rest.

        Raises OptionError for a type without defaults, unless all are given.
        """
        return _chosen(cls, LIMITS, type, asked)


@dataclass(frozen=True)
class SimilarityLimits:
    """The limits of a retrieval model's verification; all between 0 and 1."""

    min_cosine: float
    min_rank: float  # Spearman's correlation of the documents' ranks
    min_overlap: float  # of the ten best documents

    @classmethod
    def choose(cls, type: str, **asked: float | None) -> SimilarityLimits:
        """As :meth:`Limits.choose`."""
        return _chosen(cls, SIMILARITY_LIMITS, type, asked)


def _chosen(
    kind: type[AnyLimits],
    defaults: dict[str, AnyLimits],
    type: str,
    asked: dict[str, float | None],
) -> AnyLimits:
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    names = kind.__dataclass_fields__
    if given.keys() == names.keys():
        return kind(**given)
    if type not in defaults:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise OptionError(
            f"there are no default limits for {type}; give {options} (defaults exist for "
            f"{', '.join(defaults)})"
        )
    return replace(defaults[type], **given)


LIMITS = {  #        PPL    KLD    top-1
    "F32": Limits(0.001, 0.0001, 0.995),
    "F16": Limits(0.002, 0.0002, 0.990),
    "BF16": Limits(0.005, 0.001, 0.980),
    "Q8_0": Limits(0.005, 0.003, 0.960),
    "Q6_K": Limits(0.010, 0.010, 0.940),
    "Q5_K_M": Limits(0.02, 0.020, 0.910),
    "Q5_K_S": Limits(0.03, 0.027, 0.900),
    "Q4_K_M": Limits(0.05, 0.050, 0.870),
    "Q4_K_S": Limits(0.06, 0.065, 0.860),
    "Q4_0": Limits(0.10, 0.110, 0.820),
}

# llama.cpp rounds the activations of a quantized product to 8 bits, the file itself does not.
RUNTIME_LIMITS = Limits(0.005, 0.0030, 0.960)

# The same of retrieval models: examples/ci/README.md has what good files measured
# (tests/benchmarks/retrieval_limits.py).
SIMILARITY_LIMITS = {  #      cosine   rank  overlap
    "F32": SimilarityLimits(0.99999, 0.999, 0.99),
    "F16": SimilarityLimits(0.99999, 0.999, 0.98),
    "BF16": SimilarityLimits(0.9999, 0.998, 0.97),
    "Q8_0": SimilarityLimits(0.9995, 0.988, 0.92),
    "Q6_K": SimilarityLimits(0.997, 0.960, 0.86),
    "Q5_K_M": SimilarityLimits(0.993, 0.935, 0.83),
    "Q5_K_S": SimilarityLimits(0.992, 0.930, 0.82),
    "Q4_K_M": SimilarityLimits(0.980, 0.910, 0.76),
    "Q4_K_S": SimilarityLimits(0.978, 0.905, 0.74),
    "Q4_0": SimilarityLimits(0.960, 0.890, 0.70),
}
RUNTIME_SIMILARITY_LIMITS = SimilarityLimits(0.9985, 0.970, 0.87)

# The largest relative error of a run of 32 weights. From exactness or from the step of the
# type (a run's error is at most half a step on each weight), for K-quants from what was seen
# (Q4_K 0.13, Q5_K 0.06, Q6_K 0.034) with room for importance matrices.
TENSOR_LIMITS = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.025,
    "Q6_K": 0.08,
    "Q5_K": 0.15,
    "Q5_1": 0.15,
    "Q5_0": 0.18,
    "Q4_K": 0.30,
    "Q4_0": 0.36,
}


def limits_for(type: str) -> Limits:
    """The default limits of a file type. Raises OptionError for one without any."""
    return Limits.choose(type)
