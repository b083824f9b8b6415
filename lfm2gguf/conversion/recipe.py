"""How weights are stored: the options that every way to a GGUF file shares, as one value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from lfm2gguf.conversion.overrides import Overrides, parse_patterns, parse_tensor_type
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.gguf_file import parse_size
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.several import several

Types: TypeAlias = str | FileType | Iterable[str | FileType]


@dataclass(frozen=True)
class Recipe:
    """How the files of one run are made, whatever they are made from.

    A new option is a field here: the drafts carry the recipe, and the mixture reads it there.

    Args:
        type: a file type such as ``"Q4_K_M"``, or several, also as ``"Q4_K_M,Q8_0"``; None is the
            source's default.
        split_max_size: bytes, or such as "4G": several files of at most about that size.
        imatrix: what weighs the errors of the columns, as ``llama-quantize --imatrix`` has it.
        pure: every tensor in the file's default type, no mixture.
        leave_output_tensor: ``output.weight`` keeps the type it has.
        output_tensor_type: a tensor type for ``output.weight``, and for the embedding where it
            is the output as well.
        token_embedding_type: a tensor type for ``token_embd.weight``.
        tensor_type: ``"REGEX=TYPE"``, for tensors in whose names the expression is found, the
            first that is; as in llama.cpp it is put into lower case.
        label: what the default name of a file says in place of its type.
        about: texts and counts by key for the file's metadata, such as how types were chosen.
        keep_split: of a GGUF in several files, as many files with the same tensors in each, as
            ``llama-quantize --keep-split``.
        calibrated: the types that an importance matrix would give, and no matrix: what is
            quantized is rounded elsewhere (:func:`~lfm2gguf.calibrate`).

    """

    type: Types | None = None
    split_max_size: str | int | None = None
    imatrix: ImportanceMatrix | None = None
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | GGMLType | None = None
    token_embedding_type: str | GGMLType | None = None
    tensor_type: Iterable[str] = ()
    label: str | None = None
    about: Mapping[str, str | int] = field(default_factory=dict)
    calibrated: bool = False
    keep_split: bool = False

    def __post_init__(self) -> None:
        if self.type is not None:  # both are read more than once
            object.__setattr__(self, "type", several(self.type))
        object.__setattr__(self, "tensor_type", several(self.tensor_type))

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
    def overrides(self) -> Overrides:
        """Return the types asked for by name. Raises OptionError if one cannot be read."""
        output, embedding = (
            None if name is None else parse_tensor_type(name, option)
            for name, option in (
                (self.output_tensor_type, "output_tensor_type (--output-tensor-type)"),
                (self.token_embedding_type, "token_embedding_type (--token-embedding-type)"),
            )
        )
        patterns = parse_patterns(self.tensor_type, "tensor_type (--tensor-type)")
        return Overrides(self.pure, self.leave_output_tensor, output, embedding, patterns)

    @property
    def max_bytes(self) -> int:
        """Bytes of a file; 0 for no limit. Raises OptionError if it cannot be read as a size."""
        return parse_size(self.split_max_size)


def parse_types(types: Types) -> list[FileType]:
    """Return file types from their names, in any case, each once; ``Q4_K_M,Q8_0`` are two.

    Raises:
        OptionError: a name is unknown; the message has the nearest one.

    """
    given: list[str | FileType] = []
    for type in several(types):
        given += type.split(",") if isinstance(type, str) else [type]
    if not given:
        raise OptionError("type: none is given; Q4_K_M is a good one")
    return list(dict.fromkeys(_parse_type(type) for type in given))


def _parse_type(type: str | FileType) -> FileType:
    if isinstance(type, FileType):
        return type
    names = list(FileType.__members__)
    if (name := str(type).strip().upper()) in names:
        return FileType[name]
    if name == "AUTO":
        raise OptionError("type 'auto': name it; BF16 (or F16) keeps a checkpoint's 16 bits")
    near = max(names, key=lambda known: difflib.SequenceMatcher(None, name, known).ratio())
    raise OptionError(f"unknown type {type!r}; did you mean {near}? Known: {', '.join(names)}")
