"""What will be published, decided before any weight is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lfm2gguf.calibration import check_calibrates
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.conversion import (
    AdapterPlan,
    ConversionPlan,
    Draft,
    Recipe,
    Types,
    parse_types,
    plan,
    plan_adapter,
)
from lfm2gguf.errors import OptionError
from lfm2gguf.lfm2 import text_model
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.publication.origin import Origin
from lfm2gguf.reference import is_retrieval
from lfm2gguf.several import several
from lfm2gguf.storage import stamps
from lfm2gguf.verification import Limits, Material, check_texts
from lfm2gguf.version import __version__

LADDER = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")
# huggingface_hub's validate_repo_id (utils/_validators.py): parts begin and end with \w
REPOSITORY = re.compile(r"\w([\w.-]*\w)?/(?P<name>\w([\w.-]*\w)?)", re.ASCII)
LONGEST_NAME = 96  # of a repository


@dataclass(frozen=True)
class Settings:
    """How the files are made, and what they are judged and calibrated on.

    Args:
        calibrate: round the weights for what each layer sees, in place of an importance matrix.
        imatrix: compute an importance matrix, quantize with it, and publish it; not of a retrieval
            model.
        lora: an adapter that is merged into the model: a folder, or a Hub id.
        adapter: an adapter that becomes a file of its own beside the model.
        revision: branch, tag or commit of the source's repository.
        base_model: the checkpoint's repository, where the source is a folder.
        split_max_size: bytes of a file, as :class:`~lfm2gguf.conversion.Recipe` takes them.
        material: what the files are judged on.
        calibration_texts: what the matrix or the rounding is computed on; bundled by default.

    """

    calibrate: bool = False
    imatrix: bool = True
    lora: str | Path | None = None
    adapter: str | Path | None = None
    revision: str | None = None
    base_model: str | None = None
    split_max_size: str | int | None = None
    material: Material = field(default_factory=Material)
    calibration_texts: str | Path | Iterable[str | Path] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration_texts", several(self.calibration_texts))

    @property
    def texts(self) -> tuple[str | Path, ...]:
        """The texts of calibration and verification."""
        return (*cast("tuple[str | Path, ...]", self.calibration_texts), *self.material.names)


@dataclass(frozen=True)
class PublicationPlan:
    """What there will be in a repository; nothing has been read but headers.

    ``model`` are the quantized files, ``projector`` and ``adapter`` the files beside them. With
    ``matrix`` the model is quantized with an importance matrix, which is published as well.
    """

    repository: str
    folder: Path
    source: str | Path
    origin: Origin
    settings: Settings
    model: ConversionPlan
    projector: ConversionPlan | None
    adapter: AdapterPlan | None
    retrieval: bool
    matrix: bool
    key: str = field(repr=False)  # of everything that decides what is made

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """Every GGUF file of the model and of its projector."""
        return self.model.drafts + (self.projector.drafts if self.projector else ())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before it is made."""
        found = [*self.model.notes]
        if not self.origin.repository:
            found.append(
                "the card names no base model: the source is a folder; name its repository with "
                "base_model (--base-model)"
            )
        if not self.origin.card.get("license"):
            found.append(
                f"the card names no licence: {self.origin.path / 'README.md'} names none; add "
                "'license:' to the front matter of the card before it is uploaded"
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON has it."""
        return {
            "repository": self.repository,
            "folder": str(self.folder),
            "files": [{"file": name, "type": t, "bytes": n} for name, t, n in self.rows],
            "imatrix": self.matrix,
            "calibrated": self.settings.calibrate,
            "front_matter": self.origin.front_matter(retrieval=self.retrieval),
            "notes": list(self.notes),
        }

    @property
    def rows(self) -> list[tuple[str, str, int]]:
        """Name, type and bytes of every GGUF file."""
        rows = [
            (file.path.name, draft.type.name, file.layout.size)
            for draft in self.drafts
            for file in draft.files
        ]
        if self.adapter:
            rows.append((self.adapter.target.name, self.adapter.type.name, self.adapter.nbytes))
        return rows


@numbers_checked
def plan_publication(
    source: str | Path,
    to: str,
    types: Types = LADDER,
    *,
    folder: str | Path | None = None,
    settings: Settings | None = None,
) -> PublicationPlan:
    """Decide what a repository of a checkpoint's GGUF files will hold.

    Args:
        source: a checkpoint folder, or a Hub id such as ``LiquidAI/LFM2-1.2B``.
        to: the repository, such as ``me/LFM2-1.2B-GGUF``.
        types: the ladder of file types.
        folder: where the files are made; by default a folder of the repository's name, here.
        settings: how they are made.

    Raises:
        OptionError: ``to`` or ``base_model`` is not a repository's name, or a type is unknown or
            has no gate.
        Lfm2ggufError: as :func:`~lfm2gguf.plan`.

    """
    settings = settings or Settings()
    name = _name_of(to, "to (--to)")
    if settings.base_model is not None:
        _name_of(settings.base_model, "base_model (--base-model)")
    target = Path(folder or name)
    chosen = parse_types(types)
    check_texts(settings.texts)
    checkpoint = Checkpoint.open(source, settings.revision)
    origin = Origin.of(checkpoint, settings.base_model)
    retrieval = is_retrieval(text_model(checkpoint))
    for type in chosen:
        _check_gate(type.name, retrieval)
        if settings.calibrate:
            check_calibrates(type)
    quantized = any(type.default.is_quantized for type in chosen)
    calibrated = quantized and settings.calibrate
    # of a retrieval model there is no matrix: llama-imatrix has no protocol for one
    matrix = quantized and settings.imatrix and not (calibrated or retrieval)
    if settings.calibrate and not quantized:
        raise OptionError("calibrate (--calibrate): no type is quantized; leave it out")
    if settings.calibration_texts and not (calibrated or matrix):
        raise OptionError(
            "calibration_texts (--calibration-text): are for an importance matrix or a "
            "calibration, and there is to be neither; leave them out"
        )
    recipe = Recipe(chosen, settings.split_max_size, calibrated=calibrated or matrix)
    options: dict[str, Any] = {"revision": settings.revision}
    model = plan(source, None, recipe, lora=settings.lora, **options)
    projector = None
    if origin.hears_or_sees:
        projector = plan(source, None, "F16", projector=True, lora=settings.lora, **options)
    adapter = plan_adapter(settings.adapter, source) if settings.adapter else None
    key = _key(checkpoint, model, settings, matrix)
    return PublicationPlan(
        to, target, source, origin, settings, model, projector, adapter, retrieval, matrix, key
    )


def _name_of(repository: str, option: str) -> str:
    """Return the name of a repository, without its owner."""
    match = REPOSITORY.fullmatch(repository)
    wrong = any(mark in repository for mark in ("--", "..")) or repository.endswith(".git")
    if not match or wrong or len(repository) > LONGEST_NAME:
        raise OptionError(
            f"{option} is {repository!r}: give a repository's name, such as me/LFM2-GGUF"
        )
    return match["name"]


def _check_gate(type: str, retrieval: bool) -> None:
    limits = Limits()
    try:
        limits.of_similarity(type) if retrieval else limits.of_text(type)
    except OptionError as error:
        raise OptionError(
            f"type (--type) {type}: verify has no limits of its own for it, so nothing would "
            "vouch for the file; leave it out"
        ) from error


def _key(checkpoint: Checkpoint, model: ConversionPlan, settings: Settings, matrix: bool) -> str:
    """Return a digest of what decides the files: a run with the same one goes on."""
    made_of = {
        "version": __version__,
        "files": [(str(s.path), s.size, s.modified) for s in stamps(checkpoint.files)],
        "types": [draft.type.name for draft in model.drafts],
        "settings": repr(settings),
        "matrix": matrix,
    }
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
