"""What a conversion will write, decided; and what it wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

from lfm2gguf.conversion.draft import Draft, Model, draft, target_paths
from lfm2gguf.conversion.mixtures import OUTPUT
from lfm2gguf.conversion.recipe import Recipe
from lfm2gguf.conversion.write import WrittenFile, write
from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.rendering import Table, file_size, notebook_table
from lfm2gguf.storage import Stamp, check_target, made_folder


@dataclass(frozen=True)
class Conversion:
    """What was written, the tensors that were left out and why, and what else was decided."""

    files: tuple[WrittenFile, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return the files, short."""
        return f"Conversion({', '.join(map(repr, self.files))})"

    def _repr_html_(self) -> str:
        """Return the files as a notebook shows them."""
        return notebook_table(
            Table("", ("file", "type", "size", "bits/weight", "seconds"), [
                (str(f.path), f.type, file_size(f.nbytes), f"{f.bits_per_weight:.2f}",
                 f"{f.seconds:.1f}")
                for f in self.files
            ], texts=2)
        )  # fmt: skip


@dataclass(frozen=True)
class ConversionPlan:
    """Files that are decided to the last byte of their headers; no weight has been read.

    ``drafts`` are the files, ``left_out`` the tensors that none of them has, each with the
    reason, and ``notes`` what else a person should know.
    """

    drafts: tuple[Draft, ...] = field(repr=False)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _files: tuple[Stamp, ...] = field(default=(), repr=False)
    _new_folder: Path | None = field(default=None, repr=False)  # made when there is a file for it

    def __repr__(self) -> str:
        """Return what would be written, short."""
        files = (f"{draft.target}: {file_size(draft.nbytes)}" for draft in self.drafts)
        return f"ConversionPlan({', '.join(files)})"

    def _repr_html_(self) -> str:
        """Return what would be written as a notebook shows it."""
        return notebook_table(
            Table("", ("file", "type", "size", "bits/weight", "tensors"), [
                (str(d.target), d.type.name, file_size(d.nbytes), f"{d.bits_per_weight:.2f}",
                 ", ".join(f"{n} {name}" for name, n in d.type_counts.items()))
                for d in self.drafts
            ], texts=2)
        )  # fmt: skip

    @classmethod
    def of(
        cls, model: Model, target: str | Path | None, recipe: Recipe, default: str
    ) -> ConversionPlan:
        """Draft a model in each type of a recipe, ``default`` if it names none.

        Raises:
            OptionError: a type is unknown or not for this model, or one file is named for several.

        """
        types = recipe.file_types(default)
        labels = [recipe.label or type.name for type in types]
        paths = target_paths(model.metadata, labels, target)
        drafts = [draft(model, p, t, recipe) for p, t in zip(paths, types, strict=True)]
        folder = paths[0].parent
        asked = folder == Path(target or ".") and not folder.exists()
        return cls(
            tuple(drafts), model.left_out, (*model.notes, *_unfound(model, recipe)), model.files,
            folder if asked else None,
        )  # fmt: skip

    def check_importance(self) -> None:
        """Refuse an importance matrix or a calibration of files in which nothing is quantized.

        ``write`` takes them, as llama-quantize does: what the files say of the matrix is then all
        that there is of it.

        Raises:
            OptionError: saying what to leave out.

        """
        weighed = [d for d in self.drafts if d.recipe.calibrated or d.recipe.imatrix is not None]
        if weighed and not any(t.type.is_quantized for draft in weighed for t in draft.tensors):
            raise OptionError(
                "imatrix (--imatrix) or calibrate (--calibrate): nothing is quantized in a file of "
                f"the type {weighed[0].type.name}; leave it out"
            )

    def check_targets(self, *, overwrite: bool = False) -> None:
        """Refuse files that cannot or must not be written; ``write`` does so, too.

        Raises:
            OutputError: saying which, and what to do.

        """
        if self._new_folder is None:
            for draft in self.drafts:
                for file in draft.files:
                    check_target(file.path, overwrite=overwrite)

    @numbers_checked
    def write(
        self,
        *,
        jobs: int | None = None,
        executor: Executor | None = None,
        overwrite: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Conversion:
        """Write all files in one reading of the weights: all of them appear, or none.

        Args:
            jobs: processes that work; by default as many as there are cores.
            executor: what works in place of processes of our own, such as a Dask cluster's
                ``Client.get_executor()``: its workers see the same files, under the same paths.
                The bytes are the same.
            overwrite: replace files that exist.
            progress: called with a :class:`~lfm2gguf.Progress` after each part.

        Raises:
            OptionError: ``jobs`` is less than one, two files would have the same name, or one the
                name of what is read.
            OutputError: a target exists, cannot be written, or the disk is full.
            TensorError: a weight is NaN or infinite, or too large for a type; or a file was
                written or removed since the plan was made.

        """
        folder = self._new_folder
        with made_folder(folder) if folder else contextlib.nullcontext():
            files = write(
                self.drafts, self._files,
                jobs=jobs, executor=executor, overwrite=overwrite, progress=progress,
            )  # fmt: skip
        return Conversion(tuple(files), dict(self.left_out), self.notes)


def _unfound(model: Model, recipe: Recipe) -> list[str]:
    """Say what is found in no tensor's name: a slip, since it changes nothing."""
    names = [source.name for source in model.sources]
    if recipe.leave_output_tensor and OUTPUT not in names:
        return [
            f"leave_output_tensor (--leave-output-tensor): there is no {OUTPUT}; the embedding is "
            "the output as well, and token_embedding_type (--token-embedding-type) gives it a type",
            *_unfound(model, replace(recipe, leave_output_tensor=False)),
        ]
    return [
        f"tensor_type (--tensor-type): {pattern.pattern!r} is found in no tensor's name"
        for pattern, _ in recipe.overrides.patterns
        if not any(map(pattern.search, names))
    ]
