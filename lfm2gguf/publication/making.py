"""The folder that is published: every file made, judged, and described."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm2gguf.calibration import calibrate, collect_imatrix
from lfm2gguf.conversion import Recipe, WrittenFile, plan, plan_adapter
from lfm2gguf.doctor import Severity, diagnose
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.export.programs import export_for
from lfm2gguf.imatrix import ImportanceMatrix, write_imatrix
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.publication.card import Card, card
from lfm2gguf.publication.plan import PublicationPlan
from lfm2gguf.publication.state import Folder
from lfm2gguf.storage import write_whole
from lfm2gguf.verification import Session, Verification, open_reference
from lfm2gguf.verification.report.files import write_reports
from lfm2gguf.verification.report.words import explanation

CARD, MATRIX = "README.md", "imatrix.gguf"
REPORTS = {"json": "verification.json", "markdown": "verification.md", "plot": "verification.svg"}
FIRST_PART = "-00001-of-"
OVERWRITE = True  # what an interrupted run has left is made again


@dataclass(frozen=True)
class Publication:
    """A folder that is ready to be uploaded, or the reasons why not.

    ``results`` are empty where an earlier run made and judged the files.
    """

    repository: str
    folder: Path
    files: tuple[str, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()
    results: tuple[Verification, ...] = field(default=(), repr=False)
    url: str | None = None  # of the commit, once it is uploaded

    @property
    def passed(self) -> bool:
        """Whether every file passed its gates."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """Return the publication as JSON has it."""
        return {
            "repository": self.repository,
            "folder": str(self.folder),
            "files": list(self.files),
            "passed": self.passed,
            "failures": list(self.failures),
            "notes": list(self.notes),
            "url": self.url,
        }


def make(
    planned: PublicationPlan,
    *,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Publication:
    """Fill the folder, or find that an earlier run has.

    Raises:
        OutputError: the folder holds something else.
        Lfm2ggufError: one of its subclasses, where a file cannot be made or judged.

    """
    folder = Folder(planned.folder)
    if found := folder.begin(planned.key, overwrite=overwrite):
        files, failures = tuple(found["files"]), tuple(found["result"]["failures"])
        note = "made by an earlier run, and not again; overwrite=True (--force) makes it anew"
        return Publication(planned.repository, folder.path, files, failures, (note,))
    made = _Making(planned, folder, jobs, progress)
    matrix = made.matrix()
    written = tuple(made.model(matrix))
    beside = tuple(made.beside())
    results = made.judge([file.path for file in written])
    failures = (*made.failures, *made.diagnoses([*written, *beside]))
    made.reports(results)
    made.settings(written)
    if not failures:  # a card would say that they passed
        made.card(written, beside, results)
    folder.finish(planned.key, made.files, {"failures": failures})
    names = tuple(path.name for path in made.files)
    return Publication(
        planned.repository, folder.path, names, failures, tuple(made.notes), tuple(results)
    )


class _Making:
    """A folder while it is filled: its files, and what failed, in the order of the work."""

    def __init__(
        self,
        planned: PublicationPlan,
        folder: Folder,
        jobs: int | None,
        progress: ProgressCallback | None,
    ) -> None:
        self.planned, self.settings_of, self.folder = planned, planned.settings, folder
        self.jobs, self.progress = jobs, progress
        self.files, self.failures, self.notes = list[Path](), list[str](), list[str]()
        self.chats = False  # whether it has a template for conversations

    def matrix(self) -> ImportanceMatrix | None:
        """Compute the importance matrix, if there is to be one."""
        if not self.planned.matrix:
            return None
        options = self.settings_of
        matrix = collect_imatrix(
            self.planned.source,
            options.calibration_texts,
            revision=options.revision,
            lora=options.lora,
            progress=self.progress,
        )
        write_imatrix(matrix, self._add(MATRIX), overwrite=OVERWRITE)
        return matrix

    def model(self, matrix: ImportanceMatrix | None) -> Iterator[WrittenFile]:
        """Write the ladder: in one reading, or rounded with care, one type after the other."""
        options, types = self.settings_of, [draft.type for draft in self.planned.model.drafts]
        careful = [t for t in types if options.calibrate and t.default.is_quantized]
        for type in careful:
            yield from self._calibrated(type.name)
        if plain := [type for type in types if type not in careful]:
            recipe = Recipe(plain, options.split_max_size, matrix)
            planned = plan(
                self.planned.source, self.folder.path, recipe,
                revision=options.revision, lora=options.lora,
            )  # fmt: skip
            written = planned.write(jobs=self.jobs, overwrite=OVERWRITE, progress=self.progress)
            yield from map(self._made, written.files)

    def _calibrated(self, type: str) -> Iterator[WrittenFile]:
        options = self.settings_of
        made = calibrate(
            self.planned.source,
            self.folder.path,
            Recipe(type, options.split_max_size),
            texts=options.calibration_texts,
            revision=options.revision,
            lora=options.lora,
            workspace=self.folder.workspace,
            jobs=self.jobs,
            overwrite=OVERWRITE,
            progress=self.progress,
        )
        for file in made.conversion.files:
            if not made.better:
                self.failures.append(
                    f"{file.path.name}: calibrated, and not better than the plain file on the "
                    "text kept aside; give more calibration_texts (--calibration-text)"
                )
            yield self._made(file)

    def beside(self) -> Iterator[WrittenFile]:
        """Write the projector and the adapter."""
        options = self.settings_of
        if self.planned.projector:
            written = plan(
                self.planned.source, self.folder.path, "F16",
                projector=True, revision=options.revision, lora=options.lora,
            ).write(jobs=self.jobs, overwrite=OVERWRITE, progress=self.progress)  # fmt: skip
            yield from map(self._made, written.files)
        if options.adapter:
            adapter = plan_adapter(options.adapter, self.planned.source, self.folder.path)
            yield self._made(adapter.write(overwrite=OVERWRITE).file)

    def judge(self, files: Sequence[Path]) -> list[Verification]:
        """Compare every file with the checkpoint."""
        options = self.settings_of
        reference = open_reference(self.planned.source, options.revision, options.lora)
        several = len(files) > 1
        with Session(
            reference, options.material, progress=self.progress, several=several
        ) as session:
            results = [session.judge(file) for file in files]
        reference.close()
        self.failures += [f"{r.candidate}: {explanation(r)}" for r in results if not r.passed]
        return results

    def diagnoses(self, files: Sequence[WrittenFile]) -> Iterator[str]:
        """Give what the doctor finds wrong with files."""
        for file in files:
            for finding in diagnose(file.path).findings:
                if finding.severity is Severity.ERROR:
                    yield f"{file.path.name}: {finding.where}: {finding.what}"

    def reports(self, results: Sequence[Verification]) -> None:
        """Write what was measured."""
        write_reports(results, {kind: self._add(name) for kind, name in REPORTS.items()})

    def settings(self, written: Sequence[WrittenFile]) -> None:
        """Write the template and the settings that Ollama reads beside a GGUF on the Hub.

        https://huggingface.co/docs/hub/ollama: the files ``template`` and ``params``.
        """
        if self.planned.retrieval:
            return
        try:
            export = export_for("ollama", written[0].path)
        except UnsupportedError as error:
            self.notes.append(f"nothing for Ollama: {error}")
            return
        params = {**export.settings, "stop": list(export.stops)}
        write_whole(self._add("template"), export.template or "", overwrite=OVERWRITE)
        write_whole(self._add("params"), json.dumps(params, indent=2) + "\n", overwrite=OVERWRITE)
        self.chats = True

    def card(
        self,
        written: Sequence[WrittenFile],
        beside: Sequence[WrittenFile],
        results: Sequence[Verification],
    ) -> None:
        """Write the card, and the licence that it names."""
        if license := self.planned.origin.license_file:
            write_whole(self._add(license.name), license.read_bytes(), overwrite=OVERWRITE)
        told = Card(
            self.planned, tuple(written), tuple(beside), tuple(results),
            chats=self.chats, picture=REPORTS["plot"],
        )  # fmt: skip
        write_whole(self._add(CARD), card(told), overwrite=OVERWRITE)

    def _made(self, file: WrittenFile) -> WrittenFile:
        self.files += [part_path(file.path, i) for i in range(file.n_files)]
        return file

    def _add(self, name: str) -> Path:
        path = self.folder.path / name
        self.files.append(path)
        return path


def part_path(first: Path, i: int) -> Path:
    """Return the path of part ``i`` (from 0) of a model that may be one of several files."""
    return first.with_name(first.name.replace(FIRST_PART, f"-{i + 1:05d}-of-"))
