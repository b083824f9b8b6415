"""Files made to measure: which tensor gets which type under a size, or for a quality.

``budget`` is what is asked for, and ``devices`` the types that run fast on one. ``rounding``
estimates what each type loses of a tensor, ``sensitivity`` measures what that does to the model's
predictions, ``choice`` spends the bytes where they buy most, and ``session`` does all of it.
"""

from lfm2gguf.allocation.budget import Budget
from lfm2gguf.allocation.choice import Option
from lfm2gguf.allocation.devices import DEFAULT_DEVICE, FAST_TYPES
from lfm2gguf.allocation.session import AllocatedTensor, Allocation, allocate

__all__ = [
    "DEFAULT_DEVICE",
    "FAST_TYPES",
    "AllocatedTensor",
    "Allocation",
    "Budget",
    "Option",
    "allocate",
]
