"""Opening the reference and the file under test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf import llamacpp, members
from lfm2gguf.checkpoint import Adapter, Checkpoint, refuse_for_local
from lfm2gguf.errors import CheckpointError, MissingDependencyError, OptionError, UnsupportedError
from lfm2gguf.ggml import FileType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.install import install_command
from lfm2gguf.lfm2 import text_adapter, text_model
from lfm2gguf.loadable import check_loadable
from lfm2gguf.reference import (
    Reference,
    RetrievalReference,
    Settings,
    Weights,
    adapted,
    is_retrieval,
    prefixes,
)
from lfm2gguf.storage import Stamp, stamps

Ids = npt.NDArray[np.int32]
Encode = Callable[[str], Ids]


@dataclass(frozen=True)
class ReferenceModel:
    """What a file is compared with, and the tokenizer that belongs to it.

    ``encode`` gives a text's token ids, BOS in front if the model wants one (``bos``).
    ``prefixes`` are what a retrieval model's queries and documents begin with.
    """

    name: str
    path: Path  # a GGUF, or the folder of the tokenizer and the chat template
    files: tuple[Path, ...]  # whose contents decide the hidden states
    forward: Reference = field(repr=False)
    encode: Encode = field(repr=False)
    bos: int | None
    tokenizer: str  # where the ids come from, for the report
    prefixes: tuple[str, str] = ("", "")
    vocabulary: llamacpp.Model | None = field(default=None, repr=False)  # of a GGUF
    stamps: tuple[Stamp, ...] = field(init=False, repr=False)  # of the files, when opened

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamps", stamps(self.files))

    def close(self) -> None:
        """Free llama.cpp's copy of the vocabulary, where there is one."""
        if self.vocabulary is not None:
            self.vocabulary.close()

    @property
    def weights(self) -> Weights:
        """The tensors, by their Hugging Face names."""
        return self.forward.weights

    @property
    def retrieval(self) -> Settings | None:
        """What makes it a retrieval model; None for one that predicts text."""
        forward = self.forward
        return forward.settings if isinstance(forward, RetrievalReference) else None

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a folder, with a tokenizer and a template of its own."""
        return self.path.is_dir()


def open_reference(
    source: str | Path, revision: str | None = None, lora: str | Path | None = None
) -> ReferenceModel:
    """Open a checkpoint folder, a Hub id, or an F32, F16 or BF16 GGUF file.

    With ``lora``, an adapter's folder or Hub id, the reference is the checkpoint with it.
    ``revision`` is a branch, tag or commit of the Hub repository.

    Raises:
        OptionError: the GGUF is quantized, or ``lora`` is given for one.
        CheckpointError: the checkpoint or the adapter is incomplete or damaged.
        UnsupportedError: it is not something that predicts text or gives vectors.
        MissingDependencyError: Hugging Face's tokenizers are not installed.

    """
    if Path(source).suffix.lower() == ".gguf":
        if lora is not None:
            raise OptionError(
                f"{source}: is a GGUF; lora (--lora) needs a checkpoint as the reference"
            )
        refuse_for_local(source, revision=revision)
        return _open_gguf(Path(source))
    whole = Checkpoint.open(source, revision)
    checkpoint = text_model(whole)
    files = {whole.path / "config.json", *checkpoint.files}
    encode, name = _checkpoint_encoder(whole.path)
    ids = encode("")
    model = ReferenceModel(
        whole.name,
        whole.path,
        tuple(sorted(files)),
        _forward(checkpoint),
        encode,
        int(ids[0]) if len(ids) else None,
        name,
        prefixes(checkpoint) if is_retrieval(checkpoint) else ("", ""),
    )
    return model if lora is None else _with_adapter(model, whole, lora)


def _forward(checkpoint: Checkpoint) -> Reference:
    if is_retrieval(checkpoint):
        return RetrievalReference.from_checkpoint(checkpoint)
    return Reference(Weights.from_checkpoint(checkpoint))


def _with_adapter(model: ReferenceModel, base: Checkpoint, lora: str | Path) -> ReferenceModel:
    """Return the model with an adapter in its weights, and with its tokenizer if it brings one."""
    adapter, _ = text_adapter(base, Adapter.open(lora))
    changed = replace(
        model,
        name=f"{model.name} with {adapter.name}",
        files=(*model.files, *sorted(adapter.files)),
        forward=model.forward.of(adapted(model.weights, adapter, has_head=not model.retrieval)),
    )
    if not adapter.has_tokenizer:
        return changed
    encode, name = _checkpoint_encoder(adapter.path)
    return replace(changed, path=adapter.path, encode=encode, tokenizer=f"{name} of {adapter.name}")


def _open_gguf(path: Path) -> ReferenceModel:
    file = _with_text(GGUFFile.open(path))
    quantized = [info for info in file.tensors.values() if info.type.is_quantized]
    if quantized:
        raise OptionError(
            f"{path}: is quantized ({quantized[0].name} is {quantized[0].type.name}); a reference "
            "must be a checkpoint, or a GGUF in F32, F16 or BF16"
        )
    check_loadable(file)
    vocabulary = llamacpp.Model(path)
    return ReferenceModel(
        path.stem,
        path,
        tuple(sorted(file.files)),
        RetrievalReference.from_gguf(file)
        if members.is_retrieval(file, file.tensors)
        else Reference(Weights.from_gguf(file)),
        lambda text: llamacpp_ids(vocabulary, text),
        vocabulary.bos if vocabulary.adds_bos else None,
        "llama.cpp, from the reference file",
        vocabulary=vocabulary,
    )


def is_model(file: GGUFFile) -> bool:
    """Whether it is one: no importance matrix, adapter or projector, which lie beside models."""
    return file.get("general.type", "model") == "model" and file.architecture != "clip"


def _with_text(file: GGUFFile) -> GGUFFile:
    """Refuse what has no vocabulary: llama.cpp aborts when it is asked for tokens."""
    if not is_model(file):
        kind = file.get("general.type", "mmproj")
        raise UnsupportedError(f"{file.path}: is no model (its general.type is {kind!r:.80})")
    if not file.has_text:
        raise UnsupportedError(f"{file.path}: it has no vocabulary and predicts no text")
    return file


def llamacpp_ids(model: llamacpp.Model, text: str, *, bos: bool = True) -> Ids:
    """Return token ids as llama.cpp finds them, control tokens parsed as transformers does."""
    return np.array(model.tokenize(text, bos=bos, special=True), np.int32)


def _checkpoint_encoder(folder: Path) -> tuple[Encode, str]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no tokenizer.json; copy it from the base model")
    tokenizer = load_tokenizer(path)
    return (lambda text: np.array(tokenizer.encode(text).ids, np.int32)), "tokenizer.json"


def load_tokenizer(path: Path) -> Any:
    """Load tokenizer.json with Hugging Face's own library.

    Raises:
        MissingDependencyError: it is not installed.
        CheckpointError: the file is damaged.

    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"verifying needs Hugging Face's tokenizers: {install_command('verify')}"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(
            f"{path}: cannot be read as a tokenizer ({error}); copy it from the base model"
        ) from error
    tokenizer.no_truncation()  # left behind by training; transformers ignores both on loading
    tokenizer.no_padding()
    return tokenizer


@dataclass(frozen=True)
class Candidate:
    """The file that is judged: its header, and what its type is called."""

    file: GGUFFile
    type: str  # Q4_K_M, ...; from general.file_type
    size: int  # bytes of all its files
    stamps: tuple[Stamp, ...] = field(repr=False)  # of its files, when opened

    @classmethod
    def open(cls, path: str | Path) -> Candidate:
        """Read the header.

        Raises:
            GGUFError: the file is damaged.
            UnsupportedError: it has no vocabulary.

        """
        file = _with_text(GGUFFile.open(path))
        path = file.path
        names = {type.id: type.name for type in FileType}
        number = file.get("general.file_type")
        name = names.get(number, f"type {number}") if isinstance(number, int) else "unknown"
        parts = stamps(file.files)
        return cls(file, name, sum(part.size for part in parts), parts)

    @property
    def weights(self) -> int:
        """How many weights all its tensors have."""
        return sum(math.prod(tensor.shape) for tensor in self.file.tensors.values())

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.path.name
