"""Proof that a file still says what its checkpoint says.

A text goes through the reference (:mod:`lfm2gguf.lfm2.reference`) and through the file as
llama.cpp runs it, in step; two blocks of logits become a few numbers for each position
(``scores``), these llama-perplexity's figures (``figures``), and these a verdict (``gates``).
A retrieval model predicts no text: its vectors are compared instead (``similarity``).
"""

from lfm2gguf.verification.figures import ChunkFigures, Estimate, Figures
from lfm2gguf.verification.gates import Gate
from lfm2gguf.verification.limits import LIMITS, Limits, SimilarityLimits, limits_for
from lfm2gguf.verification.models import Candidate, open_reference
from lfm2gguf.verification.preparation import Prepared, prepare
from lfm2gguf.verification.similarity import Similarity
from lfm2gguf.verification.tensors import TensorDifference
from lfm2gguf.verification.verdict import Verification, judge, verify, verify_all

__all__ = [
    "LIMITS",
    "Candidate",
    "ChunkFigures",
    "Estimate",
    "Figures",
    "Gate",
    "Limits",
    "Prepared",
    "Similarity",
    "SimilarityLimits",
    "TensorDifference",
    "Verification",
    "judge",
    "limits_for",
    "open_reference",
    "prepare",
    "verify",
    "verify_all",
]
