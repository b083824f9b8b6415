"""What a conversion will write, decided; and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lfm2gguf.conversion.draft import Draft, Model, draft, target_paths
from lfm2gguf.conversion.recipe import Recipe
from lfm2gguf.conversion.write import WrittenFile, write
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.storage import Stamp


@dataclass(frozen=True)
class Conversion:
    """What was written, the tensors that were left out and why, and what else was decided."""

    files: tuple[WrittenFile, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()


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
        return cls(tuple(drafts), model.left_out, model.notes, model.files)

    def write(
        self,
        *,
        jobs: int | None = None,
        overwrite: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Conversion:
        """Write all files in one reading of the weights: all of them appear, or none.

        Args:
            jobs: processes that work; by default as many as there are cores.
            overwrite: replace files that exist.
            progress: called with a :class:`~lfm2gguf.Progress` after each part.

        Raises:
            OptionError: ``jobs`` is less than one, two files would have the same name, or one the
                name of what is read.
            OutputError: a target exists, cannot be written, or the disk is full.
            TensorError: a weight is NaN or infinite, or too large for a type; or a file was
                written or removed since the plan was made.

        """
        files = write(self.drafts, self._files, jobs=jobs, overwrite=overwrite, progress=progress)
        return Conversion(tuple(files), dict(self.left_out), self.notes)
