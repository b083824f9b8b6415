"""A draft: a whole GGUF file decided, before the first weight is read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import gguf

from lfm2gguf.conversion.importance import check_matrix, matrix_keys
from lfm2gguf.conversion.mixtures import (
    Facts,
    assign,
    assign_projector,
    file_order,
    lacking_importance,
)
from lfm2gguf.conversion.recipe import Recipe
from lfm2gguf.conversion.sources import SourceTensor
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.gguf_file import (
    KEYS,
    MOST_FILES,
    Layout,
    Metadata,
    TensorSpec,
    Value,
    ValueType,
    group,
    lay_out,
    split_keys,
    split_path,
)
from lfm2gguf.storage import Stamp, is_folder

# In a name that may be anybody's: control characters, what is not UTF-8, and what some system
# does not take.
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\udc80-\udcff/\\:*?"<>|]')
LONGEST_NAME = 200
TYPE_IN_NAME = re.compile(r"\{(ftype|outtype|FTYPE|OUTTYPE)\}")
QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION, ggml/include/ggml.h


@dataclass(frozen=True)
class Model:
    """What is to be written, whatever it comes from; the mixture counts layers and experts."""

    metadata: Metadata = field(repr=False)
    sources: Sequence[SourceTensor] = field(repr=False)
    n_layers: int
    n_experts: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[Stamp, ...] = ()  # that are read
    spans: tuple[slice, ...] = ()  # of the sources, the files that they are to stay in
    is_gguf: bool = False  # and not a checkpoint


@dataclass(frozen=True)
class DraftedFile:
    """One file of a draft: its name, and its layout."""

    path: Path
    layout: Layout


@dataclass(frozen=True)
class Draft:
    """A model to be written: every tensor's type and place, and the metadata.

    It becomes one file, or several where the recipe gives a size, or the source's are kept
    (``spans`` of the tensors).
    """

    target: Path
    type: FileType
    metadata: Metadata = field(repr=False)
    sources: tuple[SourceTensor, ...] = field(repr=False)
    tensors: tuple[TensorSpec, ...] = field(repr=False)
    recipe: Recipe = field(repr=False, default=Recipe())
    spans: tuple[slice, ...] = field(repr=False, default=())

    @cached_property
    def layout(self) -> Layout:
        """The header, every tensor's offset, and the size, all in one file."""
        return lay_out(self.metadata, self.tensors)

    @cached_property
    def files(self) -> tuple[DraftedFile, ...]:
        """What will be written.

        Raises:
            OptionError: there would be more files than can be numbered.

        """
        sizes = [tensor.nbytes for tensor in self.tensors]
        groups = self.spans or group(sizes, self.recipe.max_bytes or self.layout.size)
        if (n := len(groups)) == 1:
            return (DraftedFile(self.target, self.layout),)
        if n > MOST_FILES:
            raise OptionError(
                f"{self.target}: {n} files are too many; give a larger split_max_size "
                "(--split-max-size)"
            )
        files = []
        for i, span in enumerate(groups):
            keys = split_keys(i, n, len(sizes))
            if self.spans:
                keys = {key: keys[key] for key in KEYS}
            own = (self.metadata if i == 0 else {}) | keys
            layout = lay_out(own, self.tensors[span])
            files.append(DraftedFile(split_path(self.target, i, n), layout))
        return tuple(files)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.layout.size for file in self.files)

    @property
    def places(self) -> list[tuple[DraftedFile, int]]:
        """For each tensor the file that it is in, and where there it begins."""
        return [(file, offset) for file in self.files for offset in file.layout.offsets]

    @property
    def n_weights(self) -> int:
        """Weights in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of all files for each weight."""
        return 8 * self.nbytes / self.n_weights

    @property
    def type_counts(self) -> dict[str, int]:
        """How many tensors have each type."""
        return dict(Counter(tensor.type.name for tensor in self.tensors).most_common())


def draft(model: Model, target: Path, type: FileType, recipe: Recipe) -> Draft:
    """Decide a file: tensors in llama-quantize's order, with the types of the mixture.

    Where the source's files are kept the order is theirs, and the mixture counts in it.

    Raises:
        OptionError: a size or a type cannot be read, or the type needs an importance matrix.

    """
    if recipe.keep_split and not model.spans:
        raise OptionError(
            "keep_split (--keep-split): the source is not a GGUF in several files; split_max_size "
            "(--split-max-size) makes several"
        )
    if recipe.keep_split and recipe.max_bytes:
        raise OptionError(
            "keep_split (--keep-split) and split_max_size (--split-max-size): one says which "
            "files there are, the other how large; leave one out"
        )
    spans = model.spans if recipe.keep_split else ()
    sources = tuple(model.sources)
    if not spans:
        sources = tuple(sorted(sources, key=lambda source: file_order(source.name)))
    types = _mixture(model, sources, type, recipe)
    tensors = tuple(
        TensorSpec(source.name, type or source.kept, source.shape)
        for source, type in zip(sources, types, strict=True)
    )
    last = {
        "general.quantization_version": Value(ValueType.UINT32, QUANTIZATION_VERSION),
        "general.file_type": Value(ValueType.UINT32, type.id),
    }
    last |= {key: _said(value) for key, value in recipe.about.items()}
    if recipe.imatrix is not None:
        check_matrix(recipe.imatrix, sources)
        last |= matrix_keys(recipe.imatrix)
    rest = {key: value for key, value in model.metadata.items() if key not in last}
    return Draft(target, type, rest | last, sources, tensors, recipe, spans)


def _said(value: str | int) -> Value:
    return Value(ValueType.STRING if isinstance(value, str) else ValueType.UINT32, value)


def _mixture(
    model: Model, sources: Sequence[SourceTensor], type: FileType, recipe: Recipe
) -> Sequence[GGMLType | None]:
    named = [(source.name, source.shape) for source in sources]
    if _is_projector(model.metadata):
        types = assign_projector(type, named, recipe.overrides, quantized=model.is_gguf)
    else:
        weighted = recipe.imatrix is not None or recipe.calibrated
        facts = Facts(model.n_layers, model.n_experts, _gqa(model.metadata), weighted)
        types = assign(type, named, facts, recipe.overrides)
    known = recipe.imatrix.entries if recipe.imatrix else {}
    changed = [
        (source.name, new if new is not source.kept else None)
        for source, new in zip(sources, types, strict=True)
    ]
    if not recipe.calibrated and (lacking := lacking_importance(type, changed, known)):
        raise OptionError(
            f"{type.name} needs an importance matrix that has {lacking[0]!r}; the one given "
            "(imatrix, --imatrix) lacks it"
            if recipe.imatrix
            else f"{type.name} needs an importance matrix (for {lacking[0]!r} and others): "
            "imatrix (--imatrix), which lfm2gguf imatrix computes"
        )
    return types


def _gqa(metadata: Metadata) -> int:
    """Query heads to a key and value head in the first layer, as ``n_gqa`` of llama-hparams.cpp."""
    architecture = metadata.get("general.architecture")
    prefix = f"{architecture.value if architecture else ''}.attention"
    heads, shared = (_first(metadata.get(f"{prefix}.{k}")) for k in ("head_count", "head_count_kv"))
    return heads // shared if shared else 0


def _first(value: Value | None) -> int:
    number = value.value if value else 0
    if isinstance(number, list | tuple):
        number = number[0] if number else 0
    return number if isinstance(number, int) else 0


def default_name(metadata: Metadata, label: str) -> str:
    """Return llama.cpp's name for a file (gguf-py/gguf/utility.py, ``naming_convention``)."""
    keys = ("name", "basename", "finetune", "version", "size_label")
    about = [metadata.get(f"general.{key}") for key in keys]
    prefix = ""
    if _is_projector(metadata):  # its size is not the model's, and not in the name
        prefix, about[-1] = "mmproj-", None
    texts = (v.value if v and isinstance(v.value, str) else None for v in about)
    name = NOT_IN_NAMES.sub("-", gguf.naming_convention(*texts, None))
    return f"{prefix}{name[:LONGEST_NAME]}-{label}.gguf"


def _is_projector(metadata: Metadata) -> bool:
    kind = metadata.get("general.type")
    return kind is not None and kind.value == gguf.GGUFType.MMPROJ


def target_paths(
    metadata: Metadata, labels: Sequence[str], target: str | Path | None
) -> list[Path]:
    """Return where each label's file goes: the default name in a folder, or the name given.

    A label is what a file's type is called.

    ``new/`` is a folder, whether it is there or not, and so is a name without ``.gguf`` that is to
    hold several types. In a file's name ``{ftype}`` and ``{FTYPE}`` (``{outtype}``, ``{OUTTYPE}``)
    stand for the type, as in llama.cpp's converter (gguf-py/gguf/utility.py,
    ``fill_templated_filename``).

    Raises:
        OptionError: one name is given for several types.

    """
    target = target or "."
    text, folder = str(target), is_folder(target)
    if not folder and TYPE_IN_NAME.search(text):
        return [Path(TYPE_IN_NAME.sub(partial(_in_name, label), text)) for label in labels]
    if folder or (len(labels) > 1 and not text.lower().endswith(".gguf")):
        return [Path(target) / default_name(metadata, label) for label in labels]
    if len(labels) > 1:
        raise OptionError(
            f"{target}: several types need a folder (a name that ends with /), or {{ftype}} in the "
            "file's name"
        )
    return [Path(target)]


def _in_name(label: str, mark: re.Match[str]) -> str:
    return label if mark[0].isupper() else label.lower()
