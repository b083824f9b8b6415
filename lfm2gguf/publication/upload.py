"""A folder's files on the Hub, in one commit.

huggingface_hub does the work: large files go to the Hub's store first (over Xet or Git LFS, in
parts, those that are there already are not sent again), then one commit names them all. So a run
that was interrupted goes on, and nobody ever sees half of a repository.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lfm2gguf.errors import HubError
from lfm2gguf.version import __version__

MOST = 400  # characters of a reason


def check_login(repository: str, *, private: bool | None = None) -> str:
    """Return the name of the user who is logged in, before hours of work are begun.

    Raises:
        HubError: nobody is, the token is not valid, or the Hub cannot be reached; or the
            repository is there, and not as ``private`` as it is to be.

    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    with _upload_errors(repository):
        name: str = api.whoami()["name"]
        there = None
        with contextlib.suppress(RepositoryNotFoundError):
            there = api.model_info(repository).private if private is not None else None
    if there is not None and there != private:
        raise HubError(
            f"{repository}: is {'private' if there else 'public'} already; private (--private) is "
            "for a repository that is made: change it in its settings on the Hub"
        )
    return name


def upload(
    repository: str, folder: Path, files: Sequence[str], *, private: bool | None = None
) -> str:
    """Make the repository if there is none, and commit files to it; return the commit's address.

    Files of the repository that are not among ``files`` stay. ``private`` is for a repository that
    is made; None is the owner's default.

    Raises:
        HubError: the Hub refuses, or cannot be reached.

    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with _upload_errors(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, folder / name) for name in files],
            commit_message=f"GGUF files, by lfm2gguf {__version__}",
        )
        return commit.commit_url


@contextlib.contextmanager
def _upload_errors(repository: str) -> Iterator[None]:
    """Turn whatever an upload raises into a :class:`HubError` that says what to do.

    Whatever it is: huggingface_hub lets the exceptions of its HTTP client through.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    strange = next((c for c in get_token() or "" if not c.isascii()), None)  # no header's
    if strange is not None:
        raise HubError(
            f"{repository}: the token (HF_TOKEN) holds {strange!r}, which no token does; "
            "hf auth login"
        )
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise HubError(f"{repository}: nobody is logged in to the Hub; hf auth login") from error
    except Exception as error:
        chain = [e for e in (error, error.__cause__) if e is not None]
        what = " ".join(" ".join(str(e).split()) or type(e).__name__ for e in chain)[:MOST]
        status = next((e.response.status_code for e in chain if isinstance(e, HfHubHTTPError)), 0)
        if status in (401, 403):
            raise HubError(
                f"{repository}: the Hub refuses ({what}); log in with a token that may write "
                "there: hf auth login"
            ) from error
        raise HubError(
            f"{repository}: not uploaded ({what}); try again: it goes on where it stopped"
        ) from error
