"""From a checkpoint to a repository: planned, made, judged, uploaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lfm2gguf.conversion import Types
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.publication.making import Publication, make
from lfm2gguf.publication.plan import LADDER, PublicationPlan, Settings, plan_publication
from lfm2gguf.publication.upload import check_login, upload


@numbers_checked
def publish(
    source: str | Path | PublicationPlan,
    to: str = "",
    types: Types = LADDER,
    *,
    folder: str | Path | None = None,
    settings: Settings | None = None,
    private: bool | None = None,
    send: bool = True,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Publication:
    """Make a repository of a checkpoint's GGUF files, judge them, and upload it in one commit.

    Nothing is uploaded unless every file passed. A run that was stopped goes on when it is called
    again: a folder that is whole is not made again, and what the Hub has is not sent again.

    Args:
        source: a checkpoint folder, a Hub id, or what :func:`plan_publication` decided, which also
            explains ``to``, ``types``, ``folder`` and ``settings``.
        to: the repository, such as ``me/LFM2-1.2B-GGUF``.
        types: the ladder of file types.
        folder: where the files are made.
        settings: how they are made.
        private: of a repository that is made; None is the owner's default.
        send: upload; otherwise the folder is made, to be looked at.
        jobs: processes that write.
        overwrite: make everything again.
        progress: called with a :class:`~lfm2gguf.Progress` as each stage goes on.

    Raises:
        HubError: nobody is logged in, or the Hub refuses.
        OutputError: the folder holds something else.
        Lfm2ggufError: as :func:`plan_publication`, or where a file cannot be judged.

    """
    planned = source
    if not isinstance(planned, PublicationPlan):
        planned = plan_publication(planned, to, types, folder=folder, settings=settings)
    if send:
        check_login(planned.repository, private=private)
    made = make(planned, jobs=jobs, overwrite=overwrite, progress=progress)
    if not send or not made.passed:
        return made
    url = upload(made.repository, made.folder, made.files, private=private)
    return replace(made, url=url)
