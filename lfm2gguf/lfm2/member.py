"""What a member of the family gives for its file: a text model, or a projector.

``open`` parses the config, once; the other methods only say what follows from it. No weight is
read, but where a checkpoint has one twice (see :mod:`lfm2gguf.lfm2.tied_head`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata
from lfm2gguf.lfm2.metadata import Vocabulary
from lfm2gguf.lfm2.plan import PlannedTensor


class TextMember(Protocol):
    """A text model, its config parsed."""

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> TextMember:
        """Parse the config of a checkpoint whose tensors are named as a text model's alone.

        Raises:
            CheckpointError: a config lacks a key, or has one that is not valid.
            UnsupportedError: a key asks for arithmetic that llama.cpp does not have.

        """

    @property
    def architecture(self) -> str:
        """Return llama.cpp's name for it."""

    @property
    def leading(self) -> tuple[str, ...]:
        """Return the keys that follow general.architecture directly in the file."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint that the sources of the tensors refer to."""

    @property
    def n_layers(self) -> int:
        """Count the layers."""

    @property
    def n_experts(self) -> int:
        """Count the experts of a layer; 0 in a dense model."""

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its sources."""

    def left_out(self) -> Mapping[str, str]:
        """Return the tensors that the checkpoint may hold and the file does not, and why."""

    def metadata(self) -> Metadata:
        """Return the architecture's keys, in the order in which llama.cpp's converter has them.

        Raises:
            CheckpointError: a file beside config.json is missing or damaged.
            UnsupportedError: one of them asks for what llama.cpp does not compute.

        """

    def vocabulary(self, pre: str | None) -> Vocabulary:
        """Return the ``tokenizer.*`` keys and notes; ``pre`` forces the pre-tokenizer's name.

        Raises:
            CheckpointError: a file is missing or damaged, or ids lie past the embedding.
            UnsupportedError: the tokenizer is of a kind that llama.cpp does not know.

        """

    def notes(self) -> list[str]:
        """Return what was decided that a user may not expect."""


class Projector(Protocol):
    """What brings images or sound into a text model's space (mmproj), its config parsed."""

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Projector:
        """Parse the config of the whole checkpoint.

        Raises:
            CheckpointError: a key is missing or not valid.
            UnsupportedError: a key asks for arithmetic that llama.cpp does not have.

        """

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its sources."""

    def left_out(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return which of these names are not for it, and why."""

    def metadata(self) -> Metadata:
        """Return the ``clip.*`` keys, in the order in which llama.cpp's converter has them.

        Raises:
            CheckpointError: a file beside config.json is missing or damaged.

        """

    def notes(self) -> list[str]:
        """Return what a user may not expect."""

    def own_name(self, name: str) -> str:
        """Return what the checkpoint calls a tensor that an adapter may call otherwise."""
