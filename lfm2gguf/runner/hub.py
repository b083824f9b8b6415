"""GGUF files from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from lfm2gguf.errors import HubError


def fetch_gguf(repository: str, type: str, revision: str | None = None) -> Path:
    """Return the path of a repository's file of a type, downloaded once.

    Raises :class:`HubError` where there is no such repository or file.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = HfApi().list_repo_files(repository, revision=revision)
        files = [name for name in names if name.endswith(".gguf") and "mmproj" not in name]
        matching = [name for name in files if name[:-5].lower().endswith(type.lower())]
        if not matching:
            raise HubError(
                f"{repository} has no file of type {type}; it has {', '.join(files) or 'no GGUF'}"
            )
        return Path(hf_hub_download(repository, matching[0], revision=revision))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise HubError(f"{repository}: cannot be fetched: {error}") from error
