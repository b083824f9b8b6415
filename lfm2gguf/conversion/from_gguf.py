"""A GGUF file becomes smaller ones: what llama-quantize does, from whoever's file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from lfm2gguf.conversion.draft import Model
from lfm2gguf.conversion.planned import ConversionPlan
from lfm2gguf.conversion.recipe import Recipe, Types
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.conversion.write import WrittenFile
from lfm2gguf.errors import GGUFError, UnsupportedError
from lfm2gguf.gguf_file import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    GGUFFile,
    TensorInfo,
    number_in_name,
)
from lfm2gguf.members import ARCHITECTURES
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.quants import CODECS
from lfm2gguf.storage import stamps

DEFAULT_TYPE = "Q4_K_M"


def plan_quantization(
    source: str | Path,
    target: str | Path | None = None,
    type: Types | Recipe | None = None,
    *,
    allow_requantize: bool = False,
) -> ConversionPlan:
    """Decide what a GGUF file of F32, F16 or BF16 weights becomes; no weight is read.

    Metadata is copied as it stands, but for an alignment that llama.cpp cannot map.

    Args:
        source: the GGUF file; of a model in several, the first.
        target: a file's name, or a folder for files of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"`` (the default), or several.
            A :class:`~lfm2gguf.conversion.Recipe` also says how the files are made.
        allow_requantize: take a file that is quantized already; quality is lost twice.

    Raises:
        GGUFError: the file is damaged, or quantized already.
        UnsupportedError: its architecture or a tensor's type is not known here.
        OptionError: a type is unknown, or one file is named for several types.

    """
    recipe = Recipe.of(type)
    recipe.file_types(DEFAULT_TYPE)  # refused before the file is opened
    file = GGUFFile.open(source)
    _check(file, allow_requantize)
    metadata = {k: v for k, v in file.metadata.items() if not k.startswith("split.")}
    if (given := metadata.get(ALIGNMENT)) and given.value < DEFAULT_ALIGNMENT.value:
        metadata[ALIGNMENT] = DEFAULT_ALIGNMENT
    sources = [
        SourceTensor(info.name, _shape(info), (_part(info),), info.type)
        for info in file.tensors.values()
    ]
    counts = (_count(file, "block_count"), _count(file, "expert_count"))
    read = stamps(file.files)
    model = Model(metadata, sources, *counts, files=read, spans=_spans(file), is_gguf=True)
    return ConversionPlan.of(model, target, recipe, DEFAULT_TYPE)


@numbers_checked
def quantize(
    source: str | Path,
    target: str | Path | None = None,
    type: Types | Recipe | None = None,
    *,
    allow_requantize: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> tuple[WrittenFile, ...]:
    """Quantize a GGUF file of F32, F16 or BF16 weights, whoever wrote it.

    It is :func:`plan_quantization` and then
    :meth:`~lfm2gguf.conversion.ConversionPlan.write`, which explain the arguments.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    planned = plan_quantization(source, target, type, allow_requantize=allow_requantize)
    return planned.write(jobs=jobs, overwrite=overwrite, progress=progress).files


def _check(file: GGUFFile, allow_requantize: bool) -> None:
    projector = str(file.get("clip.projector_type", ""))
    if file.architecture not in ARCHITECTURES and not projector.startswith(ARCHITECTURES[0]):
        raise UnsupportedError(
            f"{file.path}: the architecture is {file.architecture!r}; the mixtures of "
            f"{' and '.join(ARCHITECTURES)} are known. llama-quantize takes any architecture"
        )
    if not file.tensors:
        raise GGUFError(f"{file.path}: holds no tensors (a vocabulary only?)")
    for info in file.tensors.values():
        if info.type not in CODECS:
            raise UnsupportedError(
                f"{file.path}: the tensor {info.name!r} is {info.type.name}, which lfm2gguf cannot "
                "read; start from an F32, F16 or BF16 file"
            )
        if info.type.is_quantized and not allow_requantize:
            raise GGUFError(
                f"{file.path}: is quantized already ({info.name!r} is {info.type.name}); start "
                "from an F32, F16 or BF16 file, or accept the loss with "
                "allow_requantize=True (--allow-requantize)"
            )


def _spans(file: GGUFFile) -> tuple[slice, ...]:
    """Return which tensors, in order, each file of several has; nothing for one file."""
    numbers = [number_in_name(info.file) for info in file.tensors.values()]
    if len(file.files) == 1:
        return ()
    ends = [sum(n <= i for n in numbers) for i in range(max(numbers) + 1)]
    return tuple(slice(start, end) for start, end in pairwise([0, *ends]))


def _shape(info: TensorInfo) -> tuple[int, ...]:
    """Leave out leading ones, as llama.cpp does where it writes a tensor (``ggml_n_dims``)."""
    ones = next((i for i, n in enumerate(info.shape) if n > 1), len(info.shape) - 1)
    return info.shape[ones:]


def _part(info: TensorInfo) -> Part:
    return Part(info.name, info.stored, 0, info.n_rows)


def _count(file: GGUFFile, key: str) -> int:
    value = file.get(f"{file.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0
