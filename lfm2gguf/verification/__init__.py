"""Proof that a file still says what its checkpoint says.

A text goes through the reference (:mod:`lfm2gguf.reference.forward`) and through the file as
llama.cpp runs it, in step; two blocks of logits become a few numbers for each position
(``scores``), these llama-perplexity's figures (``figures``), and these a verdict (``gates``).
A retrieval model predicts no text: its vectors are compared instead (``similarity``).
"""

from lfm2gguf.verification.material.conversations import chat_samples
from lfm2gguf.verification.material.models import Candidate, ReferenceModel, open_reference
from lfm2gguf.verification.material.preparation import Prepared, prepare
from lfm2gguf.verification.material.texts import cut, load_texts
from lfm2gguf.verification.measure.figures import ChunkFigures, Estimate, Figures
from lfm2gguf.verification.measure.scores import score
from lfm2gguf.verification.measure.similarity import Similarity
from lfm2gguf.verification.measure.tensors import TensorDifference
from lfm2gguf.verification.session import Verification, judge, verify, verify_all
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.limits import LIMITS, Limits, SimilarityLimits, limits_for

__all__ = [
    "LIMITS",
    "Candidate",
    "ChunkFigures",
    "Estimate",
    "Figures",
    "Gate",
    "Limits",
    "Prepared",
    "ReferenceModel",
    "Similarity",
    "SimilarityLimits",
    "TensorDifference",
    "Verification",
    "chat_samples",
    "cut",
    "judge",
    "limits_for",
    "load_texts",
    "open_reference",
    "prepare",
    "score",
    "verify",
    "verify_all",
]
