"""How weights are stored: the options that every way to a GGUF file shares, as one value."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.gguf_file import parse_size
from lfm2gguf.imatrix import ImportanceMatrix

Types: TypeAlias = str | FileType | Sequence[str | FileType]


@dataclass(frozen=True)
class Recipe:
    """How the files of one run are made, whatever they are made from.

    A new option is a field here: the drafts carry the recipe, and the mixture reads it there.

    Args:
        type: a file type such as ``"Q4_K_M"``, or several; None is the source's default.
        split_max_size: bytes, or such as "4G": several files of at most about that size.
        imatrix: what weighs the errors of the columns, as ``llama-quantize --imatrix`` has it.

    """

    type: Types | None = None
    split_max_size: str | int | None = None
    imatrix: ImportanceMatrix | None = None

    @classmethod
    def of(cls, type: Types | Recipe | None) -> Recipe:
        """Return a recipe as it is, and one of these types for types."""
        return type if isinstance(type, Recipe) else cls(type)

    def file_types(self, default: str) -> list[FileType]:
        """Return the types, each once.

        Raises:
            OptionError: a name is unknown; the message has the nearest one.

        """
        return parse_types(default if self.type is None else self.type)

    @property
    def max_bytes(self) -> int:
        """Bytes of a file; 0 for no limit. Raises OptionError if it cannot be read as a size."""
        return parse_size(self.split_max_size)


def parse_types(types: Types) -> list[FileType]:
    """Return file types from their names, in any case, each once.

    Raises:
        OptionError: a name is unknown; the message has the nearest one.

    """
    given = [types] if isinstance(types, str | FileType) else list(types)
    if not given:
        raise OptionError("type: none is given; Q4_K_M is a good one")
    return list(dict.fromkeys(_parse_type(type) for type in given))


def _parse_type(type: str | FileType) -> FileType:
    if isinstance(type, FileType):
        return type
    names = list(FileType.__members__)
    if (name := type.strip().upper()) in names:
        return FileType[name]
    near = max(names, key=lambda known: difflib.SequenceMatcher(None, name, known).ratio())
    raise OptionError(f"unknown type {type!r}; did you mean {near}? Known: {', '.join(names)}")
