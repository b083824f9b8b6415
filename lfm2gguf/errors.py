"""The exceptions of lfm2gguf: one tree.

Each message says what is wrong, where, and what to do about it. The command line prints
it as one line and exits with 2; a program catches :class:`Lfm2ggufError`.
"""

from __future__ import annotations


class Lfm2ggufError(Exception):
    """Anything that lfm2gguf refuses or cannot do."""


class CheckpointError(Lfm2ggufError):
    """A Hugging Face folder is missing a file, or a file in it is damaged."""


class UnsupportedError(Lfm2ggufError):
    """The input is sound, but it is something that lfm2gguf does not handle."""


class TensorError(CheckpointError):
    """A tensor is missing, left over, of the wrong shape, or holds NaN or infinity."""


class GGUFError(Lfm2ggufError):
    """A GGUF file is damaged, or is not what the operation needs."""


class QuantizationError(Lfm2ggufError):
    """An array cannot be stored in, or read back from, the requested type."""


class OutputError(Lfm2ggufError):
    """The target exists, cannot be written, or the disk is full."""


class OptionError(Lfm2ggufError):
    """An argument has a value that is not one of those allowed."""


class HubError(Lfm2ggufError):
    """A repository could not be fetched from, or put on, the Hugging Face Hub."""


class MissingDependencyError(Lfm2ggufError):
    """An optional package is needed and not installed; the message names the extra."""


class RuntimeFailureError(Lfm2ggufError):
    """llama.cpp failed while it ran a model, or the runner is closed."""


class DeviceError(Lfm2ggufError):
    """The device asked for is missing: in the build, in the driver, or in the machine."""


class ContextError(Lfm2ggufError):
    """A prompt does not fit into the context."""


class EndpointError(Lfm2ggufError):
    """A server cannot be reached, refuses a request, or does not speak OpenAI's protocol."""
