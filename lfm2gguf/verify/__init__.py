"""Proof that a file still says what its checkpoint says.

A text goes through the reference (:mod:`lfm2gguf.lfm2.reference`) and through the file as
llama.cpp runs it, in step; two blocks of logits become a few numbers for each position
(``scores``), these llama-perplexity's figures (``figures``), and these a verdict (``gates``).
"""

from lfm2gguf.verify.figures import ChunkFigures, Estimate, Figures
from lfm2gguf.verify.gates import Gate
from lfm2gguf.verify.limits import LIMITS, Limits, limits_for
from lfm2gguf.verify.models import Candidate
from lfm2gguf.verify.preparation import Prepared, prepare
from lfm2gguf.verify.tensors import TensorDifference
from lfm2gguf.verify.verification import Verification, judge, verify, verify_all

__all__ = [
    "LIMITS",
    "Candidate",
    "ChunkFigures",
    "Estimate",
    "Figures",
    "Gate",
    "Limits",
    "Prepared",
    "TensorDifference",
    "Verification",
    "judge",
    "limits_for",
    "prepare",
    "verify",
    "verify_all",
]
