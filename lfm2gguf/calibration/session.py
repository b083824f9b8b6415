"""A calibrated conversion: the plan of a plain one, with tensors that were rounded better.

The finished tensors wait in a folder until the file is written, so that a run that was killed
goes on where it stopped, and so that the writer need not know of calibration.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lfm2gguf import blas
from lfm2gguf.calibration.grids import GRIDS
from lfm2gguf.calibration.judge import Judgement, finished_rows, judge
from lfm2gguf.calibration.material import (
    DEFAULT_CHUNKS,
    OWN_TEXT,
    CalibrationMaterial,
    calibration_material,
    in_company,
)
from lfm2gguf.calibration.moments import CORRECTION, FEATURES_PER_TOKEN
from lfm2gguf.calibration.own_text import with_own_text
from lfm2gguf.calibration.products import FLOAT32, Products, products_for
from lfm2gguf.calibration.recipe import calibrate_layers
from lfm2gguf.calibration.rounding import METHOD
from lfm2gguf.calibration.store import Store, finished_sources
from lfm2gguf.conversion import Conversion, ConversionPlan, Draft, Recipe, plan
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, gguf_names
from lfm2gguf.storage import scratch_folder
from lfm2gguf.verification import ReferenceModel, open_reference
from lfm2gguf.version import __version__

HELD_OUT = 8  # one sequence in so many judges the result, and is not calibrated on
MOST_OWN_TEXT = 16.0  # for each token of the text
DEFAULT_TYPE = "Q4_K_M"
KEY = "lfm2gguf.calibration."  # our own metadata, which llama.cpp ignores


@dataclass(frozen=True)
class Calibrated:
    """A calibrated file, how it was made, and how it compares with the plain one.

    ``kept_plain`` are tensors whose plain rounding lost no more; ``few_tokens`` are experts
    that fewer tokens reached than they have columns, which were rounded partly for what their
    layer sees.
    """

    conversion: Conversion
    judgement: Judgement
    tokens: int
    kept_plain: tuple[str, ...] = ()
    few_tokens: tuple[str, ...] = ()

    @property
    def better(self) -> bool:
        """Whether the file is nearer to the checkpoint on the held-out text."""
        return self.judgement.calibrated < self.judgement.plain

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON knows them."""
        figure = self.judgement.measure.key
        return {
            figure: self.judgement.calibrated,
            f"{figure}_plain": self.judgement.plain,
            "held_out_tokens": self.judgement.tokens,
            "tokens": self.tokens,
            "better": self.better,
            "kept_plain": list(self.kept_plain),
            "few_tokens": list(self.few_tokens),
        }


@dataclass(frozen=True)
class CalibrationPlan:
    """A calibration that is decided: the files as :attr:`files` has them, and what they take.

    ``used`` is calibrated on, ``held_out`` judges the result.
    """

    files: ConversionPlan
    model: ReferenceModel = field(repr=False)
    used: CalibrationMaterial
    held_out: CalibrationMaterial

    @numbers_checked
    def write(
        self,
        *,
        workspace: str | Path | None = None,
        jobs: int | None = None,
        executor: Executor | None = None,
        overwrite: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Calibrated:
        """Calibrate, compare with the plain rounding on the held-out text, and write.

        Args:
            workspace: a folder for finished tensors, which a later run of the same takes up
                again; by default a temporary one.
            jobs: threads that calibrate and processes that write the file, by default one for
                each processor; the bytes are the same.
            executor: what rounds matrices that do not need each other, and writes the file, such
                as a Dask cluster's ``Client.get_executor()``: its workers see the same files,
                ``workspace`` included.
            overwrite: replace a file that exists.
            progress: called with a :class:`~lfm2gguf.Progress` after each layer.

        Raises:
            Lfm2ggufError: as :meth:`~lfm2gguf.conversion.ConversionPlan.write`.

        """
        [draft] = self.files.drafts
        self.files.check_targets(overwrite=overwrite)  # not after an hour of work
        model = self.model
        products = products_for(draft.type.default)
        with _workspace(workspace) as folder:
            store = Store(folder / _run_key(model, draft, self.used, products))
            names = quantized_names(model, draft)
            material = with_own_text(
                model, self.used, progress, threads=jobs, store=store, products=products
            )
            made = _calibrate(model, draft, material, store, names, progress, executor, jobs)
            judgement = judge(model, draft, store, names, self.held_out, progress)
            calibrated = replace(draft, sources=finished_sources(draft, names, store))
            written = replace(self.files, drafts=(calibrated,)).write(
                jobs=jobs, executor=executor, overwrite=overwrite, progress=progress
            )
        return Calibrated(written, judgement, self.used.tokens, *made)


@numbers_checked
def plan_calibration(
    source: str | Path,
    target: str | Path | None = None,
    type: str | Recipe | None = DEFAULT_TYPE,
    *,
    texts: str | Path | Iterable[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    own_text: float = OWN_TEXT,
) -> CalibrationPlan:
    """Decide a file with weights rounded for what each layer sees; no weight is read.

    It has the types and the size of ``llama-quantize --imatrix``'s; every llama.cpp runs it.

    Args:
        source: a checkpoint folder, or a Hub id.
        target: a file's name, or a folder for a file of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"``, or a :class:`~lfm2gguf.conversion.Recipe` of one.
        texts: UTF-8 files to calibrate on; by default a bundled mixture.
        chat: conversations as JSON in any usual form, rendered by the model's own template.
        chunks: at most so many chunks of each text; None for all.
        ctx: tokens of a chunk.
        revision: branch, tag or commit of a Hub repository.
        pre: name of the pre-tokenizer, as :func:`~lfm2gguf.convert` takes it.
        lora: an adapter's folder or Hub id, merged first.
        own_text: tokens that the checkpoint writes itself, for each of the text's that are
            calibrated on: they join it. More do better on other texts, and take longer. A
            retrieval model writes none.

    Raises:
        OptionError: a text cannot be read, is too short, or does not go with the model.
        Lfm2ggufError: as :func:`~lfm2gguf.convert`.

    """
    recipe = replace(Recipe.of(type), calibrated=True)
    if recipe.imatrix is not None:
        raise OptionError(
            "an importance matrix (--imatrix) and calibration (--calibrate): calibration sums more "
            "than a matrix holds; leave the matrix out"
        )
    types = recipe.file_types(DEFAULT_TYPE)
    if len(types) != 1:
        raise OptionError("type (--type): calibration makes one type at a time, not several")
    check_calibrates(types[0])
    model = open_reference(source, revision, lora)
    if model.retrieval and own_text != OWN_TEXT:
        raise OptionError(
            f"own_text (--own-text): {model.name} is a retrieval model, which writes no text; "
            "leave it out"
        )
    material = calibration_material(model, texts, chat=chat, chunks=chunks, ctx=ctx)
    used, held_out = shares(model, material, ctx, own_text)
    recipe = replace(recipe, about={**recipe.about, **about(used, products_for(types[0].default))})
    files = plan(source, target, recipe, revision=revision, pre=pre, lora=lora)
    files.check_importance()
    return CalibrationPlan(files, model, used, held_out)


def check_calibrates(type: FileType) -> None:
    """Refuse a file type whose weights calibration would leave rounded plainly.

    Raises:
        OptionError: most of its tensors are of a type without a grid of scales.

    """
    if type.default.is_quantized and type.default not in GRIDS:
        rounded = ", ".join(sorted(known.name for known in GRIDS))
        raise OptionError(
            f"type (--type): {type.name} is made of {type.default.name}, which calibration does "
            f"not round (it does {rounded}); leave calibrate (--calibrate) out and give an "
            "importance matrix (--imatrix auto)"
        )


@numbers_checked
def calibrate(
    source: str | Path,
    target: str | Path | None = None,
    type: str | Recipe | None = DEFAULT_TYPE,
    *,
    texts: str | Path | Iterable[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    own_text: float = OWN_TEXT,
    workspace: str | Path | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Calibrated:
    """Convert a checkpoint to one type, with weights rounded for what each layer sees.

    It is :func:`plan_calibration` and then :meth:`CalibrationPlan.write`, which explain the
    arguments.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    planned = plan_calibration(
        source, target, type, texts=texts, chat=chat, chunks=chunks, ctx=ctx,
        revision=revision, pre=pre, lora=lora, own_text=own_text,
    )  # fmt: skip
    return planned.write(
        workspace=workspace, jobs=jobs, executor=executor, overwrite=overwrite, progress=progress
    )


@contextlib.contextmanager
def calibrated_rows(
    model: ReferenceModel,
    draft: Draft,
    material: CalibrationMaterial,
    progress: ProgressCallback | None = None,
) -> Iterator[Callable[[str, int, int], Array]]:
    """Calibrate as a file of this draft would be; give what reads the tensors, and forget them.

    It reads rows, of experts matrices, by the reference's names.
    """
    names = quantized_names(model, draft)
    with scratch_folder() as folder:
        store = Store(folder)
        _calibrate(model, draft, material, store, names, progress)
        yield finished_rows(model, draft, store, names)


def quantized_names(model: ReferenceModel, draft: Draft) -> dict[str, str]:
    """Pair the reference's names of all quantized tensors with the GGUF's.

    Experts are stacked under one name in both.
    """
    quantized = {tensor.name for tensor in draft.tensors if tensor.type.block_size > 1}
    known = gguf_names(len(model.weights.config.layers))
    return {
        ours: theirs
        for ours, theirs in known.items()
        if ours in model.weights.shapes and theirs in quantized
    }


def _calibrate(
    model: ReferenceModel,
    draft: Draft,
    material: CalibrationMaterial,
    store: Store,
    names: Mapping[str, str],
    progress: ProgressCallback | None,
    executor: Executor | None = None,
    jobs: int | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Finish every tensor; return those whose plain rounding was kept, and those of few tokens."""
    types = {tensor.name: tensor.type for tensor in draft.tensors}
    single = dict(_single(model, names))  # the reference's name of a matrix -> the store's
    kept_plain, few = list[str](), list[str]()
    for made in calibrate_layers(
        model.forward,
        material.sequences,
        {name: types[tensor] for name, (tensor, _) in single.items()},
        lambda name: store.load(*single[name]),
        counting(progress, "calibrating", "layers"),
        executor,
        threads=jobs,
        folder=store.folder,
        products=products_for(draft.type.default),
    ):
        tensor, expert = single[made.name]
        store.save(tensor, expert, made.rounded.data)
        label = tensor if expert is None else f"{tensor}, expert {expert}"
        if made.rounded.plain:
            kept_plain.append(label)
        if made.tokens < made.rounded.values.shape[1]:
            few.append(label)
    return tuple(kept_plain), tuple(few)


def _single(
    model: ReferenceModel, names: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, int | None]]]:
    """Give every matrix with the GGUF's tensor and, where it is one of a stack, its number."""
    for ours, theirs in names.items():
        shape = model.weights.shapes[ours]
        if len(shape) == 2:
            yield ours, (theirs, None)
            continue
        stack, matrix = ours.removesuffix(".weight").rsplit(".", 1)
        for e in range(shape[0]):
            yield f"{stack}.{e}.{matrix}.weight", (theirs, e)


def about(material: CalibrationMaterial, products: Products = FLOAT32) -> dict[str, str | int]:
    """Return what a file says of how it was made, under keys that llama.cpp passes over."""
    said: dict[str, str | int] = {
        "method": f"{METHOD}, "
        f"correction {CORRECTION:g}, damping {FEATURES_PER_TOKEN:g} x columns / tokens",
        "datasets": ", ".join(material.names),
        "sha256": material.digest,
        "version": __version__,
        "tokens": material.tokens,
        "blas": blas.recorded(),
        "products": str(products),
    }
    return {KEY + key: value for key, value in said.items()}


def shares(
    model: ReferenceModel, material: CalibrationMaterial, ctx: int, own_text: float = OWN_TEXT
) -> tuple[CalibrationMaterial, CalibrationMaterial]:
    """Return what a model is calibrated on, and the share of the text that judges the result.

    Other text joins what is calibrated on, the checkpoint's own, which is still to be written.

    Raises:
        OptionError: there is too little for both, or ``own_text`` is out of range.

    """
    if not 0 <= own_text <= MOST_OWN_TEXT:
        raise OptionError(
            f"own_text (--own-text) is {own_text:g}; give a number from 0 to {MOST_OWN_TEXT:g}"
        )
    used, held_out = material.split(HELD_OUT)
    if not used.sequences or not held_out.sequences:
        raise OptionError(
            f"texts (--text): {len(material.sequences)} chunks are too few; {HELD_OUT} or more are "
            "needed, since one in so many is kept to judge the result"
        )
    return in_company(model, used, ctx, own_text), held_out


def _run_key(
    model: ReferenceModel, draft: Draft, material: CalibrationMaterial, products: Products
) -> str:
    """Return a name that is another one for another model, type or text."""
    digest = hashlib.sha256(material.digest.encode())
    for path in model.files:
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    for tensor in draft.tensors:
        digest.update(f"{tensor.name} {tensor.type.name} {tensor.shape}".encode())
    digest.update(
        f"{__version__} {METHOD} {CORRECTION} {FEATURES_PER_TOKEN} {material.own}".encode()
    )
    digest.update(f"{blas.recorded()} {products}".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _workspace(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with scratch_folder() as made:
        yield made
