"""What a good file of each type measures at most, and so what a file is held to.

Chosen from two kinds of good files, with room for other models and texts:

- the example model of this repository on three texts (examples/ci/README.md has the table,
  tests/benchmarks/type_limits.py makes it);
- llama.cpp's own table for Llama 3 8B, the least forgiving of the published ones
  (tools/perplexity/README.md, commit 0c1e57098): Q8_0 0.0014, Q6_K 0.0055, Q5_K_M 0.0108,
  Q5_K_S 0.0166, Q4_K_M 0.0313, Q4_K_S 0.0431, Q4_0 0.0719 nats.

Limits of the mean KL divergence are about 1.5 times the larger of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import check_numbers

WORST_CHUNK = 2.0  # times max_kld; the worst chunk of good files was 1.2 to 1.5 times the mean
WORST_TEXT = 2.5  # times 1 - min_cosine; the worst text of good files was at most 1.2 times it


@dataclass(frozen=True)
class TextLimits:
    """What a text model's file is held to; shares are between 0 and 1, divergences in nats."""

    max_ppl_increase: float
    max_kld: float
    min_top1: float


@dataclass(frozen=True)
class SimilarityLimits:
    """What a retrieval model's file is held to; all between 0 and 1."""

    min_cosine: float
    min_rank: float  # Spearman's correlation of the documents' ranks
    min_overlap: float  # of the ten best documents


@dataclass(frozen=True)
class TypeLimits:
    """The default limits of a file type, for a model of either kind."""

    text: TextLimits
    similarity: SimilarityLimits


@dataclass(frozen=True)
class TensorLimits:
    """What one tensor type may and does lose.

    ``run`` is the largest relative error of a run of 32 weights that passes: from exactness or
    from the step of the type (a run's error is at most half a step on each weight, and of ternary
    types at most the weight), for K-quants from what was seen (Q4_K 0.13, Q5_K 0.06, Q6_K 0.034)
    with room for importance matrices. Of types of two bits and less it is about 1.3 times what
    weights of heavy tails, or of columns of very different size, showed under importance of very
    different columns (tests/benchmarks/run_limits.py): much, so that :mod:`.verdict.gates` looks
    at whole tensors as well. ``noise`` is the error of a whole tensor relative to its size, as
    weights of heavy tails have it (Student's t with 4 degrees of freedom); normal ones have 0.6
    to 1 of it.
    """

    run: float
    noise: float


def _row(
    ppl: float, kld: float, top1: float, cosine: float, rank: float, overlap: float
) -> TypeLimits:
    return TypeLimits(TextLimits(ppl, kld, top1), SimilarityLimits(cosine, rank, overlap))


# Those of retrieval models: examples/ci/README.md has what good files measured
# (tests/benchmarks/retrieval_limits.py).
TYPE_LIMITS = {  # PPL    KLD    top-1  cosine   rank   overlap
    "F32": _row(0.001, 0.0001, 0.995, 0.99999, 0.999, 0.99),
    "F16": _row(0.002, 0.0002, 0.990, 0.99999, 0.999, 0.98),
    "BF16": _row(0.005, 0.001, 0.980, 0.9999, 0.998, 0.97),
    "Q8_0": _row(0.005, 0.003, 0.960, 0.9995, 0.988, 0.92),
    "Q6_K": _row(0.010, 0.010, 0.940, 0.997, 0.960, 0.86),
    "Q5_K_M": _row(0.02, 0.020, 0.910, 0.993, 0.935, 0.83),
    "Q5_K_S": _row(0.03, 0.027, 0.900, 0.992, 0.930, 0.82),
    "Q4_K_M": _row(0.05, 0.050, 0.870, 0.980, 0.910, 0.76),
    "Q4_K_S": _row(0.06, 0.065, 0.860, 0.978, 0.905, 0.74),
    "Q4_0": _row(0.10, 0.110, 0.820, 0.960, 0.890, 0.70),
}

# More types of text models. Of the example model's three texts and llama.cpp's table (PPL ratio - 1
# and KL divergence, without importance matrices but for IQ4) the larger, with the same room: Q5_1
# 0.017 and 0.018, Q5_0 0.021 and 0.022, IQ4_NL 0.036 and 0.043, Q4_1 0.072 and 0.072, Q3_K_L 0.089
# and 0.118, Q3_K_M 0.105 and 0.128, Q3_K_S 0.26 and 0.23, Q2_K 0.56 and 0.50.
MORE_TEXT_LIMITS = {  #     PPL   KLD    top-1
    "Q5_1": TextLimits(0.03, 0.030, 0.895),
    "Q5_0": TextLimits(0.035, 0.035, 0.89),
    "IQ4_NL": TextLimits(0.06, 0.065, 0.84),
    "IQ4_XS": TextLimits(0.06, 0.065, 0.83),
    "Q4_1": TextLimits(0.10, 0.110, 0.82),
    "Q3_K_L": TextLimits(0.13, 0.18, 0.76),
    "Q3_K_M": TextLimits(0.16, 0.19, 0.755),
    "Q3_K_S": TextLimits(0.39, 0.34, 0.70),
    "Q2_K": TextLimits(0.85, 0.75, 0.57),
    # By tests/benchmarks/type_limits.py and llama.cpp's table, with importance matrices where
    # llama.cpp demands one: IQ3_M 0.125 and 0.19, IQ3_S 0.16 and 0.22, IQ3_XS 0.15 and 0.17,
    # IQ3_XXS 0.20 and 0.26, Q2_K_S 0.50 and 0.46, IQ2_M 0.38 and 0.38, IQ2_S 0.55 and 0.51, IQ2_XS
    # 0.73 and 0.68, IQ2_XXS 1.26 and 0.82, IQ1_M 3.1 and 1.39, IQ1_S 9.1 and 2.29; MXFP4 0.08 and
    # 0.10, of every matrix but the embedding.
    "MXFP4_MOE": TextLimits(0.12, 0.155, 0.77),
    "IQ3_M": TextLimits(0.19, 0.29, 0.70),
    "IQ3_S": TextLimits(0.24, 0.335, 0.675),
    "Q2_K_S": TextLimits(0.75, 0.69, 0.58),
    "IQ3_XS": TextLimits(0.225, 0.25, 0.725),
    "IQ3_XXS": TextLimits(0.30, 0.39, 0.665),
    "IQ2_M": TextLimits(0.57, 0.57, 0.61),
    "IQ2_S": TextLimits(0.82, 0.77, 0.565),
    "IQ2_XS": TextLimits(1.1, 1.0, 0.51),
    "IQ2_XXS": TextLimits(1.9, 1.25, 0.46),
    "IQ1_M": TextLimits(4.6, 2.1, 0.39),
    "IQ1_S": TextLimits(13.7, 3.4, 0.31),
    # Types for models that are trained in them. These are what weights of any other model come to
    # (Q1_0 110 and 4.6, Q2_0 174 and 5.1, TQ 571 and 6.2): nothing of use, and told by nothing but
    # the weights' gate. For a trained one give limits.
    "Q1_0": TextLimits(170.0, 7.0, 0.0),
    "Q2_0": TextLimits(260.0, 7.6, 0.0),
    "TQ2_0": TextLimits(860.0, 9.3, 0.0),
    "TQ1_0": TextLimits(860.0, 9.3, 0.0),
}

# More types of retrieval models, from two kinds of model made of the example (examples/ci has the
# figures): 1.6 times what the worse lacks of 1 in cosine, 1.4 times in rank and overlap. Of Q1_0,
# Q2_0 and TQ as above. MXFP4_MOE was not measured, and has Q4_0's.
MORE_SIMILARITY_LIMITS = {  #  cosine  rank  overlap
    "MXFP4_MOE": SimilarityLimits(0.96, 0.89, 0.7),
    "Q5_1": SimilarityLimits(0.995, 0.97, 0.89),
    "Q5_0": SimilarityLimits(0.993, 0.965, 0.85),
    "IQ4_NL": SimilarityLimits(0.982, 0.865, 0.73),
    "IQ4_XS": SimilarityLimits(0.982, 0.84, 0.7),
    "Q4_1": SimilarityLimits(0.978, 0.925, 0.81),
    "Q3_K_L": SimilarityLimits(0.952, 0.86, 0.69),
    "Q3_K_M": SimilarityLimits(0.943, 0.875, 0.73),
    "Q3_K_S": SimilarityLimits(0.925, 0.8, 0.65),
    "IQ3_M": SimilarityLimits(0.92, 0.825, 0.69),
    "IQ3_S": SimilarityLimits(0.9, 0.78, 0.61),
    "Q2_K": SimilarityLimits(0.81, 0.44, 0.42),
    "IQ3_XS": SimilarityLimits(0.931, 0.77, 0.61),
    "IQ3_XXS": SimilarityLimits(0.898, 0.71, 0.57),
    "Q2_K_S": SimilarityLimits(0.81, 0.615, 0.45),
    "IQ2_M": SimilarityLimits(0.848, 0.785, 0.65),
    "IQ2_S": SimilarityLimits(0.805, 0.675, 0.51),
    "IQ2_XS": SimilarityLimits(0.745, 0.615, 0.51),
    "IQ2_XXS": SimilarityLimits(0.675, 0.535, 0.52),
    "IQ1_M": SimilarityLimits(0.528, 0.365, 0.37),
    "IQ1_S": SimilarityLimits(0.43, 0.16, 0.29),
    "Q1_0": SimilarityLimits(0.0, 0.0, 0.14),
    "Q2_0": SimilarityLimits(0.0, 0.0, 0.14),
    "TQ2_0": SimilarityLimits(0.0, 0.0, 0.1),
    "TQ1_0": SimilarityLimits(0.0, 0.0, 0.1),
}

# llama.cpp rounds the activations of a quantized product to 8 bits, the file itself does not.
RUNTIME_LIMITS = _row(0.005, 0.0030, 0.960, 0.9985, 0.970, 0.87)

TENSOR_LIMITS = {  # run  noise
    "F32": TensorLimits(1e-6, 6e-8),
    "F16": TensorLimits(1e-3, 2.2e-4),
    "BF16": TensorLimits(4e-3, 1.7e-3),
    "Q8_0": TensorLimits(0.025, 0.0075),
    "Q6_K": TensorLimits(0.08, 0.023),
    "Q5_K": TensorLimits(0.15, 0.044),
    "Q5_1": TensorLimits(0.15, 0.046),
    "Q5_0": TensorLimits(0.18, 0.058),
    "Q4_K": TensorLimits(0.30, 0.086),
    "Q4_0": TensorLimits(0.36, 0.12),
    "Q4_1": TensorLimits(0.36, 0.095),
    "IQ4_NL": TensorLimits(0.36, 0.094),
    "IQ4_XS": TensorLimits(0.60, 0.095),
    "Q3_K": TensorLimits(0.80, 0.183),
    "Q2_K": TensorLimits(2.2, 0.34),
    "MXFP4": TensorLimits(0.45, 0.132),
    "IQ3_S": TensorLimits(1.1, 0.20),
    "IQ3_XXS": TensorLimits(1.1, 0.26),
    "IQ2_S": TensorLimits(1.4, 0.34),
    "IQ2_XS": TensorLimits(1.4, 0.35),
    "IQ2_XXS": TensorLimits(2.6, 0.42),
    "IQ1_M": TensorLimits(2.6, 0.60),
    "IQ1_S": TensorLimits(3.0, 0.58),
    "Q1_0": TensorLimits(1.5, 0.71),
    "Q2_0": TensorLimits(1.05, 0.73),
    "TQ2_0": TensorLimits(1.02, 0.84),
    "TQ1_0": TensorLimits(1.02, 0.84),
}


def text_limits() -> dict[str, TextLimits]:
    """Return the default limits of text models by file type."""
    return {name: row.text for name, row in TYPE_LIMITS.items()} | MORE_TEXT_LIMITS


def similarity_limits() -> dict[str, SimilarityLimits]:
    """Return the default limits of retrieval models by file type."""
    return {name: row.similarity for name, row in TYPE_LIMITS.items()} | MORE_SIMILARITY_LIMITS


Row = TypeVar("Row", TextLimits, SimilarityLimits)


@dataclass(frozen=True)
class Limits:
    """The limits that are not to be the file type's own; None leaves the type's.

    Args:
        max_ppl_increase: of PPL ratio - 1.
        max_kld: of the mean KL divergence, in nats.
        min_top1: least share of positions at which both prefer the same token.
        min_cosine: of a retrieval model, the least mean cosine of its vectors.
        min_rank: likewise, of the rank correlation of documents.
        min_overlap: likewise, of the share of the ten best documents that both have.

    """

    max_ppl_increase: float | None = None
    max_kld: float | None = None
    min_top1: float | None = None
    min_cosine: float | None = None
    min_rank: float | None = None
    min_overlap: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no figure can meet or miss.

        Raises:
            OptionError: one is not a number, or a share is above 1.

        """
        check_numbers(type(self).__annotations__, vars(self))
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and math.isnan(value):
                raise OptionError(f"{_option(limit.name)} is not a number")
            if value is not None and value > 1 and limit.name.startswith("min_"):
                raise OptionError(
                    f"{_option(limit.name)} is {value:g}: a share is 1 at most, such as 0.9 or 90%"
                )

    def of_text(self, type: str) -> TextLimits:
        """Return what a text model's file of this type is held to.

        Raises:
            OptionError: a limit is a retrieval model's, or the type has no default limits and
                they are not all given.

        """
        self._refuse(SimilarityLimits, "a text model, whose predictions are compared")
        return self._fill(TextLimits, type, text_limits())

    def of_similarity(self, type: str) -> SimilarityLimits:
        """Return what a retrieval model's file of this type is held to.

        Raises:
            OptionError: as :meth:`of_text`, with the kinds exchanged.

        """
        self._refuse(TextLimits, "a retrieval model, whose vectors are compared")
        return self._fill(SimilarityLimits, type, similarity_limits())

    def _given(self, kind: type[Row]) -> dict[str, float]:
        values = {field.name: getattr(self, field.name) for field in fields(kind)}
        return {name: value for name, value in values.items() if value is not None}

    def _refuse(self, other: type[Row], kind: str) -> None:
        for name in self._given(other):
            raise OptionError(f"{_option(name)}: does not apply to {kind}; leave it out")

    def _fill(self, kind: type[Row], type: str, defaults: dict[str, Row]) -> Row:
        given = self._given(kind)
        names = [field.name for field in fields(kind)]
        if len(given) == len(names):
            return kind(**given)
        if type not in defaults:
            raise OptionError(
                f"there are no default limits for {type}; give "
                f"{', '.join(map(_option, names))} (defaults exist for {', '.join(defaults)})"
            )
        return replace(defaults[type], **given)


def _option(name: str) -> str:
    return f"{name} (--{name.replace('_', '-')})"
