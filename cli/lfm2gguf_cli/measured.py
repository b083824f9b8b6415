"""What convert does before it writes: matrices, types under a budget, calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfm2gguf.conversion import ConversionPlan, Recipe, plan
from lfm2gguf.errors import OptionError
from lfm2gguf_cli.console import Display
from lfm2gguf_cli.options import (
    BudgetOptions,
    MaterialOptions,
    StorageOptions,
    own_text_arguments,
)
from lfm2gguf_cli.progress import progress_of
from lfm2gguf_cli.tables import show_allocation

if TYPE_CHECKING:
    from lfm2gguf.calibration import CalibrationPlan
    from lfm2gguf.imatrix import ImportanceMatrix


def compute_matrix(display: Display, source: str | Path, **how: Any) -> ImportanceMatrix:
    """Compute the importance matrix of ``--imatrix auto``."""
    from lfm2gguf.calibration import collect_imatrix

    with progress_of(display) as progress:
        return collect_imatrix(source, progress=progress, **how)


@dataclass(frozen=True)
class Passes:
    """A checkpoint, and the passes through it that come before the writing."""

    source: str
    output: str | None
    storage: StorageOptions
    material: MaterialOptions
    budgets: BudgetOptions
    calibrate: bool
    own_text: float | None
    workspace: Path | None
    opening: dict[str, Any]  # revision, pre, lora

    @property
    def wanted(self) -> bool:
        """Whether there is any."""
        computed = self.storage.computes_matrix
        return self.calibrate or computed or self.budgets.budget() is not None

    def refuse(self, reason: str) -> None:
        """Refuse them where the source is not a text model's checkpoint."""
        asked = {
            "--calibrate": self.calibrate,
            "--imatrix auto": self.storage.computes_matrix,
            "--size, --bpw or --kld": self.budgets.budget() is not None,
            "--own-text": self.own_text is not None,
            "--workspace": self.workspace is not None,
            **dict.fromkeys(self.material.given, True),
        }
        for option, is_asked in asked.items():
            if is_asked:
                raise OptionError(f"{option}: {reason}")

    def check_options(self) -> None:
        """Refuse options of which one is without effect beside the others."""
        if self.calibrate and self.storage.imatrix is not None:
            raise OptionError(
                "--imatrix and --calibrate: calibration sums more than a matrix holds; leave "
                "--imatrix out"
            )
        if self.own_text is not None and not self.calibrate:
            raise OptionError(
                "--own-text: is written to be calibrated on; give --calibrate, or leave it out"
            )
        if self.workspace is not None and not self.calibrate:
            raise OptionError(
                "--workspace: is where a calibration goes on; give --calibrate, or leave it out"
            )
        if self.material.given and not self.wanted:
            raise OptionError(
                f"{self.material.given[0]}: is for --calibrate, --imatrix auto, --size, --bpw and "
                "--kld; give one of them, or leave it out"
            )

    def check_targets(self, *, overwrite: bool) -> None:
        """Refuse what stands in the way of the files before the work."""
        if not self.wanted:
            return
        budget = self.budgets.budget()
        label = None if budget is None else str(budget)
        early = replace(self.storage.recipe(), calibrated=True, label=label)
        planned = plan(self.source, self.output, early, **self.opening)
        if budget is None:
            planned.check_importance()
        planned.check_targets(overwrite=overwrite)

    def recipe(self, display: Display) -> tuple[Recipe, dict[str, Any]]:
        """Return how weights are stored, and what to say of it as data."""
        recipe = replace(self._stored(display), calibrated=self.calibrate)
        budget = self.budgets.budget()
        if budget is None:
            return recipe, {}
        from lfm2gguf.allocation import DEFAULT_DEVICE, allocate

        with progress_of(display) as progress:
            allocation = allocate(
                self.source, budget, recipe, device=self.budgets.device or DEFAULT_DEVICE,
                progress=progress, **own_text_arguments(self.own_text), **self.opening,
                **self.material.arguments(),
            )  # fmt: skip
        show_allocation(display, allocation)
        return allocation.recipe, {"allocation": allocation.to_json()}

    def _stored(self, display: Display) -> Recipe:
        if not self.storage.computes_matrix:
            return self.storage.recipe()
        opening = {key: value for key, value in self.opening.items() if key != "pre"}
        matrix = compute_matrix(display, self.source, **opening, **self.material.arguments())
        return self.storage.recipe(matrix)

    def plan(self, recipe: Recipe, **more: Any) -> tuple[ConversionPlan, CalibrationPlan | None]:
        """Decide the files, and the calibration if there is to be one."""
        if not self.calibrate:
            return plan(self.source, self.output, recipe, **self.opening, **more), None
        from lfm2gguf.calibration import plan_calibration

        calibration = plan_calibration(
            self.source, self.output, recipe, **own_text_arguments(self.own_text),
            **self.opening, **self.material.arguments(),
        )  # fmt: skip
        return calibration.files, calibration
