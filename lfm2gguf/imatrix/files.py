"""Reading and writing importance matrices, in GGUF and in llama-imatrix's legacy format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lfm2gguf.errors import GGUFError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, TensorSpec, Value, ValueType, lay_out
from lfm2gguf.imatrix import legacy
from lfm2gguf.imatrix.matrix import Entry, Floats, ImportanceMatrix, merge
from lfm2gguf.storage import write_whole

MAGIC = b"GGUF"
TYPE = "general.type"
DATASETS, CHUNK_COUNT, CHUNK_SIZE = (
    f"imatrix.{key}" for key in ("datasets", "chunk_count", "chunk_size")
)
SUMS, COUNTS = ".in_sum2", ".counts"


def read_imatrix(path: str | Path) -> ImportanceMatrix:
    """Read a file of either format; its first bytes say which.

    Source: common/imatrix-loader.cpp, ``common_imatrix_load`` (llama.cpp 0c1e57098).

    Raises:
        GGUFError: the file is missing, damaged, or not an importance matrix.

    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise GGUFError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _read_gguf(path) if magic == MAGIC else legacy.read(path)


def write_imatrix(matrix: ImportanceMatrix, target: str | Path, *, overwrite: bool = False) -> None:
    """Write ``target``: legacy if its suffix is ``.dat``, else GGUF.

    Source: tools/imatrix/imatrix.cpp, ``save_imatrix`` (llama.cpp 0c1e57098).

    Raises:
        OutputError: the target exists, or cannot be written.

    """
    target = Path(target)
    if target.suffix == ".dat":
        write_whole(target, legacy.to_bytes(matrix), overwrite=overwrite)
        return
    matrix = matrix if matrix.chunk_size else merge([matrix])  # a legacy one, in tokens
    names = sorted(matrix.entries)
    specs = [spec for name in names for spec in _specs(name, matrix.entries[name])]
    layout = lay_out(_metadata(matrix), specs)
    with layout.create(target, overwrite=overwrite) as partial, partial.open("r+b") as file:
        for spec, offset in zip(specs, layout.offsets, strict=True):
            file.seek(offset)
            file.write(_array(matrix, spec.name).astype("<f4").tobytes())


def _read_gguf(path: Path) -> ImportanceMatrix:
    file = GGUFFile.open(path)
    keys = {key: file.get(key) for key in (DATASETS, CHUNK_COUNT, CHUNK_SIZE)}
    missing = [key for key, value in keys.items() if value is None]
    if missing:
        raise GGUFError(
            f"{path}: the metadata has no {missing[0]}, so this is not an importance matrix; "
            "make one with lfm2gguf imatrix"
        )
    datasets, count, size = keys.values()
    if not (
        isinstance(datasets, list | tuple) and isinstance(count, int) and isinstance(size, int)
    ):
        raise GGUFError(f"{path}: the imatrix.* keys have other types than llama-imatrix writes")
    return ImportanceMatrix(
        dict(_entries(file)), tuple(str(name) for name in datasets), count, max(size, 1), path
    )


def _entries(file: GGUFFile) -> Iterator[tuple[str, Entry]]:
    names = {name.removesuffix(SUMS).removesuffix(COUNTS) for name in file.tensors}
    if not names:
        raise GGUFError(f"{file.path}: holds no entries; compute the matrix again")
    for name in sorted(names):
        sums, counts = _floats(file, name + SUMS), _floats(file, name + COUNTS)
        if not counts.size or sums.size % counts.size:
            raise GGUFError(
                f"{file.path}: {name} has {sums.size} sums and {counts.size} counts, which do not "
                "divide them; compute the matrix again"
            )
        if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts < 2**62).all()):
            raise GGUFError(f"{file.path}: {name}{COUNTS} holds values that are not counts")
        rounded = np.floor(counts.astype(np.float64) + 0.5).astype(np.int64)  # lround
        yield name, Entry(sums.reshape(counts.size, -1), rounded)


def _floats(file: GGUFFile, name: str) -> Floats:
    info = file.tensors.get(name)
    if info is None or info.type is not GGMLType.F32:
        raise GGUFError(
            f"{file.path}: {'no tensor' if info is None else 'not F32:'} {name}; an importance "
            "matrix has sums and counts for each weight"
        )
    floats: Floats = file.data(name).view("<f4").astype(np.float32).reshape(-1)
    return floats


def _metadata(matrix: ImportanceMatrix) -> dict[str, Value]:
    return {
        TYPE: Value(ValueType.STRING, "imatrix"),
        DATASETS: Value(ValueType.ARRAY, list(matrix.datasets), ValueType.STRING),
        CHUNK_COUNT: Value(ValueType.UINT32, matrix.chunk_count),
        CHUNK_SIZE: Value(ValueType.UINT32, matrix.chunk_size),
    }


def _specs(name: str, entry: Entry) -> Iterator[TensorSpec]:
    """Give the two tensors of an entry; trailing dimensions of 1 are left out, as ggml does."""
    matrices, columns = entry.sums.shape
    single = matrices == 1
    yield TensorSpec(name + SUMS, GGMLType.F32, (columns,) if single else (matrices, columns))
    yield TensorSpec(name + COUNTS, GGMLType.F32, (1,) if single else (matrices, 1))


def _array(matrix: ImportanceMatrix, tensor: str) -> Floats:
    if tensor.endswith(COUNTS):
        return matrix.entries[tensor.removesuffix(COUNTS)].counts.astype(np.float32)
    return matrix.entries[tensor.removesuffix(SUMS)].sums
