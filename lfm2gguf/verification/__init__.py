"""Proof that a file still says what its checkpoint says.

A text goes through the reference (:mod:`lfm2gguf.reference.forward`) and through the file as
llama.cpp runs it, in step; two blocks of logits become a few numbers for each position
(``scores``), these llama-perplexity's figures (``figures``), and these a verdict (``gates``).
A retrieval model predicts no text: its vectors are compared instead (``similarity``).
"""

from lfm2gguf.verification.limits import (
    TENSOR_LIMITS,
    TYPE_LIMITS,
    Limits,
    SimilarityLimits,
    TextLimits,
    TypeLimits,
    text_limits,
)
from lfm2gguf.verification.material.conversations import chat_samples
from lfm2gguf.verification.material.models import Candidate, ReferenceModel, open_reference
from lfm2gguf.verification.material.preparation import Material, Prepared, prepare
from lfm2gguf.verification.material.texts import check_texts, cut, load_texts, passages
from lfm2gguf.verification.measure.engine import Engine
from lfm2gguf.verification.measure.figures import ChunkFigures, Estimate, Figures
from lfm2gguf.verification.measure.scores import score
from lfm2gguf.verification.measure.similarity import Similarity
from lfm2gguf.verification.measure.tensors import TensorDifference
from lfm2gguf.verification.session import Session, verify
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification

__all__ = [
    "TENSOR_LIMITS",
    "TYPE_LIMITS",
    "Candidate",
    "ChunkFigures",
    "Engine",
    "Estimate",
    "Figures",
    "Gate",
    "Limits",
    "Material",
    "Prepared",
    "ReferenceModel",
    "Session",
    "Similarity",
    "SimilarityLimits",
    "TensorDifference",
    "TextLimits",
    "TypeLimits",
    "Verification",
    "chat_samples",
    "check_texts",
    "cut",
    "load_texts",
    "open_reference",
    "passages",
    "prepare",
    "score",
    "text_limits",
    "verify",
]
