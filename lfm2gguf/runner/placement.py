"""Whether a file can be run here, with how much context, and which layers go to a device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from lfm2gguf.errors import DeviceError, GGUFError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Device
from lfm2gguf.members import ARCHITECTURES

MASKED = 512  # rows of the mask: n_ubatch, as Context has it
MARGIN = 512 << 20  # bytes of device memory left alone: compute buffers, and the desktop


def check_file(path: Path) -> GGUFFile:
    """Read a file's header before C code sees it.

    Raises:
        GGUFError: the file is missing, truncated, or not a GGUF file.
        UnsupportedError: it is a projector, a detokenizer, or of another architecture.
    """
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        hint = f"; did you mean {files[0]}?" if files else "; convert it first: lfm2gguf convert"
        raise GGUFError(f"{path} is a folder, not a GGUF file{hint}")
    file = GGUFFile.open(path)
    if file.architecture == "clip":
        raise UnsupportedError(
            f"{path}: this is a projector (mmproj) for images or sound, not a language model"
        )
    if file.architecture not in ARCHITECTURES:
        raise UnsupportedError(
            f"{path}: the architecture is {file.architecture!r}; lfm2gguf runs "
            f"{' and '.join(ARCHITECTURES)}. llama-cpp-python itself may run it"
        )
    if not file.has_text:
        raise UnsupportedError(
            f"{path}: it has no vocabulary and speaks no text; this is an audio detokenizer, which "
            "makes spectra of embeddings and which no program of llama.cpp drives"
        )
    return file


def check_projector(path: Path) -> GGUFFile:
    """Read a projector's header before C code sees it.

    Raises:
        GGUFError: the file cannot be read, or is not a projector.
    """
    file = GGUFFile.open(path)
    if file.architecture != "clip":
        raise GGUFError(
            f"{path}: the architecture is {file.architecture!r}, not a projector's (mmproj): "
            "`lfm2gguf convert --mmproj` makes one of a vision or audio checkpoint"
        )
    return file


def longest_sound(projector: GGUFFile) -> float | None:
    """Return how many seconds an audio projector takes; None where it has no limit.

    LFM2-Audio's graph in llama.cpp (tools/mtmd/models/conformer.cpp, commit 0c1e57098) aborts
    where half the frames of 10 ms are more than the rows of ``a.position_embd``, although that
    holds the audio codes and is not used there.
    """
    codes = projector.tensors.get("a.position_embd.weight")
    if projector.get("clip.projector_type") != "lfm2a" or codes is None:
        return None
    return 0.02 * codes.shape[0]


def check_draft(path: Path, model: GGUFFile) -> GGUFFile:
    """Read a draft model's header.

    Raises:
        GGUFError: the file cannot be run, or its vocabulary is not the model's.
    """
    file = check_file(path)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        if file.get(key) != model.get(key):
            raise GGUFError(
                f"{path}: its vocabulary is not that of {model.path.name}: a draft needs the same "
                "tokens, as LFM2-350M and LFM2-2.6B have them"
            )
    return file


def check_adapter(path: Path, model: GGUFFile) -> None:
    """Read an adapter's header before C code sees it.

    Raises:
        GGUFError: the file cannot be read, is not a LoRA adapter, or is another model's.
    """
    file = GGUFFile.open(path)
    if file.get("general.type") != "adapter" or file.get("adapter.type") != "lora":
        raise GGUFError(
            f"{path}: not a LoRA adapter: `lfm2gguf convert-lora` makes one of PEFT's folder"
        )
    if file.architecture != model.architecture:
        raise GGUFError(
            f"{path}: the adapter is for {file.architecture}, the model is {model.architecture}"
        )


def layers_that_fit(file: GGUFFile, on: Sequence[Device], cache_bytes: int) -> int:
    """Return how many layers, the output counting as one, fit into the devices' free memory.

    ``cache_bytes`` is what the context needs if everything is offloaded.
    """
    blocks = int(str(file.get(f"{file.architecture}.block_count", 0)))
    sizes = dict.fromkeys(range(blocks), cache_bytes // max(1, blocks))
    rest = 0
    for name, info in file.tensors.items():
        parts = name.split(".")
        if parts[0] == "blk":
            sizes[int(parts[1])] += info.nbytes
        else:
            rest += info.nbytes
    free = sum(max(0, device.memory_free - MARGIN) for device in on) - rest
    # llama.cpp offloads the last layers first, and the output when all blocks are there
    needed = itertools.accumulate(sizes[block] for block in sorted(sizes, reverse=True))
    fitting = sum(total <= free for total in needed)
    return blocks + 1 if fitting == blocks else fitting


def check_memory(path: Path, needed: int, available: int | None) -> None:
    """Check that a model fits into main memory.

    Raises:
        GGUFError: it does not.
    """
    if available is not None and needed > available:
        raise GGUFError(
            f"{path}: the model needs {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available: close other programs, or quantize it to "
            "a smaller type"
        )


def cache_bytes(file: GGUFFile, n_ctx: int) -> int:
    """Return the bytes that attention needs for ``n_ctx`` tokens at least, in F16.

    Keys and values of each layer's own heads (convolutions have none, and need little), and the
    mask of the tokens that a graph runs over at a time.
    """
    heads, width, of_layers = (
        file.get(f"{file.architecture}.{key}", 0)
        for key in ("attention.head_count", "embedding_length", "attention.head_count_kv")
    )
    if not (isinstance(heads, int) and isinstance(width, int) and heads > 0):
        return 0
    layers = of_layers if isinstance(of_layers, list) else [of_layers]
    kept = 2 * (width // heads) * sum(n for n in layers if isinstance(n, int))
    return 2 * n_ctx * (kept + MASKED)


def check_context(file: GGUFFile, n_ctx: int, available: int | None) -> None:
    """Check that the memory of a context fits beside the weights.

    Raises:
        OptionError: it does not.
    """
    needed = cache_bytes(file, n_ctx)
    if available is not None and needed > available:
        raise OptionError(
            f"context is {n_ctx}: it needs {needed / 1e9:.1f} GB of memory beside the model, and "
            f"{max(available, 0) / 1e9:.1f} GB are available: ask for a smaller one"
        )


def place(
    file: GGUFFile, on: list[Device], layers: int | None, asked: str, n_ctx: int
) -> tuple[list[Device], int]:
    """Decide how many layers go to the device; none that fit is an error if it was asked for.

    ``layers`` None: as many as fit, -1: all.

    Raises:
        DeviceError: the device is missing, or lacks memory for the layers asked for.
        OptionError: ``layers`` is below -1.
    """
    if layers is not None and layers < -1:
        raise OptionError(f"gpu_layers is {layers}: it must be a number of layers, or -1 for all")
    if layers and not on:
        raise DeviceError(
            f"gpu_layers is {layers}, but no GPU is there to hold them (device is {asked}): "
            "`lfm2gguf devices` says what this installation can use"
        )
    if not on or layers == 0:
        return [], 0
    if layers is not None:
        return on, layers
    cache = 4 * n_ctx * int(str(file.get(f"{file.architecture}.embedding_length", 0)))  # generous
    fit = layers_that_fit(file, on, cache)
    if fit:
        return on, fit
    if asked == "auto":
        return [], 0
    free = sum(device.memory_free for device in on) / 1e9
    raise DeviceError(f"{asked}: no layer fits into its {free:.1f} GB of free memory")
