"""Rules by which llama.cpp loads an LFM2 and computes it: keys, tensors, types, vocabulary.

Facts: src/models/lfm2.cpp, src/llama-model.cpp and src/llama-vocab.cpp of llama.cpp, commit
0c1e57098.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, Metadata, ValueType
from lfm2gguf.lfm2 import Keys
from lfm2gguf.members import ARCHITECTURES

Shape = tuple[int, ...]

EMBEDDING, NORM, OLD_NORM = "token_embd.weight", "token_embd_norm.weight", "output_norm.weight"
WIDTH = "feed-forward-width"
# Keys that give one axis of a tensor its length.
LENGTHS = {
    "embedding_length": (NORM, 0),
    "feed_forward_length": (".ffn_gate.weight", 0),
    "shortconv.l_cache": (".shortconv.conv.weight", 1),
    "expert_count": (".ffn_gate_inp.weight", 0),
    "expert_feed_forward_length": (".ffn_gate_exps.weight", 1),
}
GENERAL = {"general.name": ValueType.STRING, "general.file_type": ValueType.UINT32}
AGAIN = "convert the checkpoint again with this version of lfm2gguf"
MAPPED = 32  # TENSOR_ALIGNMENT, ggml/src/ggml-impl.h: where weights that are mapped begin
NAMED_TOKENS = ("bos", "eos", "eot", "padding", "unknown", "seperator", "mask")
# No type for weights: numbers, and the formats that activations are quantized to.
NOT_WEIGHTS = {
    GGMLType[name] for name in ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Something that llama.cpp refuses or dies of: its name, where, what, and what to do."""

    code: str
    where: str
    what: str
    fix: str


@dataclass(frozen=True)
class Contents:
    """What a file's header says: keys, and each tensor's shape (NumPy's order) and type.

    ``starts`` are the bytes at which the weights begin, one for each file of a model in several.
    """

    path: Path
    metadata: Metadata = field(repr=False)
    shapes: Mapping[str, Shape] = field(repr=False)
    types: Mapping[str, GGMLType] = field(repr=False)
    starts: tuple[int, ...] = ()

    @classmethod
    def of(cls, file: GGUFFile) -> Contents:
        """See a file so."""
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        types = {name: tensor.type for name, tensor in file.tensors.items()}
        starts = starts_of((tensor.file, tensor.offset) for tensor in file.tensors.values())
        return cls(file.path, file.metadata, shapes, types, starts)

    @property
    def architecture(self) -> str:
        """``lfm2`` or ``lfm2moe``, as a rule."""
        return str(self.get("general.architecture"))

    @property
    def tokens(self) -> list[object]:
        """The vocabulary's texts."""
        found = self.get("tokenizer.ggml.tokens")
        return found if isinstance(found, list) else []

    def get(self, key: str) -> object:
        """Return the value of a key, or None."""
        value = self.metadata.get(key)
        return None if value is None else value.value


def starts_of(places: Iterable[tuple[Path, int]]) -> tuple[int, ...]:
    """Return where the first tensor of each file begins, given each tensor's file and byte."""
    first: dict[Path, int] = {}
    for path, offset in places:
        first[path] = min(offset, first.get(path, offset))
    return tuple(first.values())


def problems(contents: Contents) -> Iterator[Problem]:
    """Yield what keeps llama.cpp from loading and computing a text model."""
    return chain.from_iterable(rule(contents) for rule in RULES)


def needed_keys(contents: Contents) -> Iterator[Problem]:
    """Check the keys that llama.cpp needs."""
    if contents.architecture in ARCHITECTURES:
        for key, what in Keys(contents.architecture, contents.metadata).problems().items():
            yield Problem("metadata-key", key, f"{what}; llama.cpp refuses the file", AGAIN)
    for key, type in GENERAL.items():
        if (value := contents.metadata.get(key)) and value.type is not type:
            what = f"is {value.type.name.lower()}, where a {type.name.lower()} belongs"
            yield Problem("metadata-key", key, f"{what}; llama.cpp refuses the file", AGAIN)


def tensors(contents: Contents) -> Iterator[Problem]:
    """Compare names and shapes with those that the keys call for, as llama.cpp does."""
    if contents.architecture not in ARCHITECTURES:
        return
    keys = Keys(contents.architecture, contents.metadata)
    if keys.problems():
        return  # they have been said
    there = {name: _trimmed(shape) for name, shape in contents.shapes.items()}
    # One row for each token: see vocabulary.
    n_vocab = there.get(EMBEDDING, (0,))[0] if contents.tokens else keys.number("vocab_size")
    needed, optional = keys.tensors(n_vocab)
    if NORM not in there and there.pop(OLD_NORM, ()):
        needed.pop(NORM)
        yield Problem(
            "old-norm-name", OLD_NORM,
            f"is the old name of the final norm; llama.cpp looks for {NORM} and reports a "
            "missing tensor",
            AGAIN,
        )  # fmt: skip
    if missing := [name for name in needed if name not in there]:
        yield Problem(
            "tensor-missing", _and_more(missing),
            "the metadata calls for it, and it is missing; llama.cpp refuses the file",
            f"{AGAIN}; if tensors are unknown too, the keys are another model's",
        )  # fmt: skip
    known = needed | optional
    if unknown := [name for name in there if name not in known]:
        yield Problem(
            "tensor-unknown", _and_more(unknown),
            "has no place in what the metadata describes; llama.cpp refuses the file",
            f"{AGAIN}; if tensors are missing too, the keys are another model's",
        )  # fmt: skip
    yield from _shapes(contents, keys, {
        name: (shape, there[name])
        for name, shape in known.items()
        if name in there and _trimmed(shape) != there[name]
    })  # fmt: skip


def _shapes(
    contents: Contents, keys: Keys, wrong: Mapping[str, tuple[Shape, Shape]]
) -> Iterator[Problem]:
    """Blame tensors of another shape (called for, there) on a key, where one alone is wrong."""
    blamed = False
    for key, (suffix, axis) in LENGTHS.items():
        name = next((name for name in wrong if name.endswith(suffix)), "")
        called, found = wrong.get(name, ((), ()))
        if len(called) == len(found) > axis and called[axis] != found[axis]:
            blamed, full = True, f"{contents.architecture}.{key}"
            yield Problem(
                WIDTH if key == "feed_forward_length" else "tensor-shape", full,
                f"is {keys.number(key)}, and {name} is {found[axis]} wide; llama.cpp refuses "
                "the file",
                f"{AGAIN}, or: gguf-set-metadata {contents.path} {full} {found[axis]}",
            )  # fmt: skip
    if wrong and not blamed:
        name, (called, found) = next(iter(wrong.items()))
        yield Problem(
            "tensor-shape", _and_more(list(wrong)),
            f"is {_dims(found)}, and the metadata calls for {_dims(called)}; llama.cpp refuses the "
            "file",
            f"{AGAIN}, or correct {contents.architecture}.attention.head_count and the other keys",
        )  # fmt: skip


def _trimmed(shape: Shape) -> Shape:
    """Drop leading ones, which llama.cpp does not distinguish."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _dims(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _and_more(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def vocabulary(contents: Contents) -> Iterator[Problem]:
    """Check that each row of the embedding has a token, and that named ids exist."""
    n, rows = len(contents.tokens), contents.shapes.get(EMBEDDING, (0,))[0]
    if rows and n and n != rows:
        yield Problem(
            "vocabulary-rows", EMBEDDING,
            f"has {rows} rows for {n} tokens; llama.cpp wants one for each",
            "resize the embedding (model.resize_token_embeddings(len(tokenizer))), save the "
            "checkpoint, and convert it again",
        )  # fmt: skip
    if len(set(contents.tokens)) < n:
        counted = Counter(map(str, contents.tokens))
        twice = [text for text, times in counted.items() if times > 1]
        yield Problem(
            "token-twice", "tokenizer.ggml.tokens",
            f"has {_and_more([repr(text) for text in twice])} more than once; llama.cpp ends the "
            "process (GGML_ASSERT in src/llama-vocab.cpp)",
            "take the later one out of tokenizer.json or tokenizer_config.json, and " + AGAIN,
        )  # fmt: skip
    for kind in NAMED_TOKENS:
        id = contents.get(f"tokenizer.ggml.{kind}_token_id")
        if isinstance(id, int) and n and not 0 <= id < n:
            yield Problem(
                "token-id", f"tokenizer.ggml.{kind}_token_id",
                f"is {id}, and there are {n} tokens", "correct tokenizer_config.json, and " + AGAIN,
            )  # fmt: skip


def types(contents: Contents) -> Iterator[Problem]:
    """Check that each tensor has a type that its operation takes (ggml-cpu/ops.cpp)."""
    is_model = contents.architecture in ARCHITECTURES and contents.get("general.type") != "adapter"
    for name, type in contents.types.items():
        if name.endswith("shortconv.conv.weight") and type is not GGMLType.F32:
            yield Problem(
                "convolution-type", name,
                f"is {type.name}; llama.cpp's convolution takes F32 only (ggml_ssm_conv)",
                "quantize it again with lfm2gguf or llama-quantize, which keep it in F32",
            )  # fmt: skip
        elif is_model and len(_trimmed(contents.shapes[name])) == 1 and type is not GGMLType.F32:
            yield Problem(
                "vector-type", name,
                f"is {type.name}; llama.cpp multiplies and adds vectors in F32 only",
                "quantize it again with lfm2gguf or llama-quantize, which keep it in F32",
            )  # fmt: skip
    wrong: dict[GGMLType, list[str]] = {}
    for name, type in contents.types.items():
        if type in NOT_WEIGHTS:
            wrong.setdefault(type, []).append(name)
    for type, names in wrong.items():
        yield Problem(
            "type-not-for-weights", _and_more(names),
            f"is {type.name}, for which llama.cpp has no matrix product",
            "convert the checkpoint to one of the types of lfm2gguf convert --help",
        )  # fmt: skip


def alignment(contents: Contents) -> Iterator[Problem]:
    """Check that weights begin where llama.cpp can map them (ggml_backend_cpu_buffer_from_ptr)."""
    for start in contents.starts:
        if start % MAPPED:
            yield Problem(
                "alignment", "general.alignment",
                f"is {contents.get('general.alignment')}, and the weights begin at byte {start}, "
                f"which is no multiple of {MAPPED}; llama.cpp ends the process where it maps them",
                "quantize it, or its F32, F16 or BF16 original, with lfm2gguf, which aligns them",
            )  # fmt: skip
            return


RULES = (needed_keys, tensors, vocabulary, types, alignment)
