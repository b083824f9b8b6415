"""A GGUF file becomes smaller ones: what llama-quantize does, from whoever's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lfm2gguf.conversion.draft import Draft, draft, parse_types, target_paths
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.conversion.write import ProgressCallback, WrittenFile, write
from lfm2gguf.errors import GGUFError, UnsupportedError
from lfm2gguf.ggml import FileType
from lfm2gguf.gguf_file import GGUFFile, TensorInfo, parse_size
from lfm2gguf.members import ARCHITECTURES
from lfm2gguf.quants import CODECS


def quantize(
    source: str | Path,
    target: str | Path | None = None,
    type: str | FileType | Sequence[str | FileType] = "Q4_K_M",
    *,
    jobs: int | None = None,
    overwrite: bool = False,
    allow_requantize: bool = False,
    split_max_size: str | int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[WrittenFile, ...]:
    """Quantize a GGUF file of F32, F16 or BF16 weights; metadata is copied as it stands.

    Args:
        source: the GGUF file; of a model in several, the first.
        target: a file's name, or a folder for files of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"``, or several.
        jobs: processes that work; by default as many as there are cores.
        overwrite: replace files that exist.
        allow_requantize: take a file that is quantized already; quality is lost twice.
        split_max_size: bytes, or such as "4G": several files of about that size.
        progress: called with a :class:`~lfm2gguf.conversion.Progress` after each part.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    drafts = draft_quantization(
        source, target, type, allow_requantize=allow_requantize, split_max_size=split_max_size
    )
    return tuple(write(drafts, jobs=jobs, overwrite=overwrite, progress=progress))


def draft_quantization(
    source: str | Path,
    target: str | Path | None = None,
    type: str | FileType | Sequence[str | FileType] = "Q4_K_M",
    *,
    allow_requantize: bool = False,
    split_max_size: str | int | None = None,
) -> list[Draft]:
    """What :func:`quantize` would write; no weight is read."""
    types = parse_types(type)
    file = GGUFFile.open(source)
    _check(file, allow_requantize)
    metadata = {k: v for k, v in file.metadata.items() if not k.startswith("split.")}
    sources = [
        SourceTensor(info.name, info.shape, (_part(info),), info.type)
        for info in file.tensors.values()
    ]
    options = {
        "n_layers": _count(file, "block_count"),
        "n_experts": _count(file, "expert_count"),
        "max_bytes": parse_size(split_max_size),
    }
    return [
        draft(metadata, sources, path, type, **options)
        for path, type in zip(target_paths(metadata, types, target), types, strict=True)
    ]


def _check(file: GGUFFile, allow_requantize: bool) -> None:
    if file.architecture not in ARCHITECTURES:
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
                "from an F32, F16 or BF16 file, or accept the loss with --allow-requantize "
                "(allow_requantize=True)"
            )


def _part(info: TensorInfo) -> Part:
    return Part(info.name, info.stored, 0, info.n_rows)


def _count(file: GGUFFile, key: str) -> int:
    value = file.get(f"{file.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0
