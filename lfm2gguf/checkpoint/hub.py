"""Where a checkpoint comes from: a folder on this machine, or a repository of the Hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfm2gguf.errors import CheckpointError, HubError, OptionError

NEEDED_FILES = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "modules.json",
    "config_sentence_transformers.json",
    "[0-9]*_*/config.json",
    "[0-9]*_*/model.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapters.safetensors",
]
TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
]
REPOSITORY = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]+)(/(?P<folder>[\w-][\w.-]*))?")
CACHED_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder on this machine, and what the model is called."""

    path: Path
    name: str


def locate(
    source: str | Path, revision: str | None = None, files: Sequence[str] = NEEDED_FILES
) -> Source:
    """Find a folder, or fetch a repository's needed files into the Hub's cache.

    ``LiquidAI/LFM2.5-Audio-1.5B/audio_detokenizer`` is the checkpoint in a repository's folder.
    What is cached is not fetched again, an interrupted download goes on where it stopped,
    and with ``HF_HUB_OFFLINE=1`` only the cache is used; ``HF_ENDPOINT`` and ``HF_TOKEN``
    are honoured.

    Raises:
        CheckpointError: ``source`` is neither a folder nor a repository's id.
        HubError: the repository cannot be fetched, or has no such folder.
        OptionError: ``revision`` is given for a folder.

    """
    path = Path(source)
    if path.exists():
        refuse_for_local(path, revision=revision)
    if path.is_dir():
        return Source(path, _folder_name(path))
    if path.suffix.lower() == ".gguf" and path.is_file():
        raise CheckpointError(
            f"{path}: is a GGUF file, not a checkpoint's folder; quantize takes it (lfm2gguf "
            "quantize)"
        )
    if path.exists():
        raise CheckpointError(f"{path}: is a file; give the folder that holds config.json")
    match = REPOSITORY.fullmatch(str(source))
    if not match:
        raise CheckpointError(
            f"{source}: no such folder, and not a Hub repository's id; give a folder or an id such "
            "as LiquidAI/LFM2-1.2B"
        )
    if folder := match["folder"]:
        path = fetch(match["id"], revision, [f"{folder}/{name}" for name in files]) / folder
        if not path.is_dir():
            raise HubError(
                f"{match['id']}: has no folder {folder!r} with a checkpoint; check the id"
            )
        return Source(path, folder)
    return Source(fetch(match["id"], revision, files), match["id"].split("/")[1])


def tokenizer_folder(source: str | Path) -> Path:
    """Return the folder of a model's tokenizer and chat template; nothing else is fetched.

    Raises:
        CheckpointError: ``source`` is neither a folder nor a repository's id.
        HubError: the repository cannot be fetched.

    """
    return locate(source, files=TOKENIZER_FILES).path


def is_repository(source: str | Path) -> bool:
    """Say whether a source is a Hub repository's id, and nothing on this machine."""
    match = REPOSITORY.fullmatch(str(source))
    return bool(match and not match["folder"]) and not Path(source).exists()


def refuse_for_local(source: str | Path, **options: str | None) -> None:
    """Refuse what chooses within a Hub repository where the source is on this machine.

    Raises:
        OptionError: one of the options is given.

    """
    for name, value in options.items():
        if value is not None:
            raise OptionError(
                f"{name} (--{name}) {value}: is for a Hub repository, and {source} is on this "
                "machine; leave it out"
            )


def _folder_name(path: Path) -> str:
    """Return the folder's name, or the repository's where it is a snapshot in the cache."""
    snapshot = snapshot_of(path)
    return snapshot[0].split("/")[1] if snapshot else path.resolve().name


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """Return the repository and the commit of a folder, if it is a snapshot in the Hub's cache."""
    path = folder.resolve()
    cached = CACHED_SNAPSHOT.fullmatch(path.parent.parent.name)
    if not cached or path.parent.name != "snapshots":
        return None
    return f"{cached['owner']}/{cached['name']}", path.name


def repository_files(repository: str, revision: str | None = None) -> list[str]:
    """Return the paths of a repository's files; without the Hub, of those in the cache.

    Raises:
        HubError: the repository cannot be reached, and is not cached.

    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with one_hub_error(repository, revision):
        try:
            found = HfApi().model_info(repository, revision=revision)
            return [file.rfilename for file in found.siblings or ()]
        except (RepositoryNotFoundError, RevisionNotFoundError):  # also a gated one
            raise
        except Exception:
            folder = snapshot_download(
                repository, revision=revision, allow_patterns=[], local_files_only=True
            )
            cached = Path(folder)
            return [path.relative_to(cached).as_posix() for path in cached.rglob("*")]


def fetch(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    """Fetch files and return the cached snapshot's folder.

    Raises:
        HubError: they cannot be fetched, and are not cached.

    """
    from huggingface_hub import snapshot_download

    with one_hub_error(repository, revision):
        folder = snapshot_download(repository, revision=revision, allow_patterns=list(files))
        return Path(folder)


@contextlib.contextmanager
def one_hub_error(repository: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a :class:`HubError` that says what to do.

    Whatever it is: huggingface_hub lets the exceptions of its HTTP client through, which was
    requests, then httpx, then httpx2.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    advice = {
        GatedRepoError: "access must be granted: accept its terms on the Hub, then hf auth login",
        RepositoryNotFoundError: "no such repository, or a private one: check the id, or log in",
        RevisionNotFoundError: f"has no revision {revision!r}: give a branch, a tag or a commit",
        LocalEntryNotFoundError: "not in the cache, and the Hub cannot be reached; connect, or "
        "give a folder",
    }
    try:
        yield
    except Exception as error:
        what = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        unknown = f"could not be fetched ({what}); try again: it goes on where it stopped"
        reason = next((why for kind, why in advice.items() if isinstance(error, kind)), unknown)
        raise HubError(f"{repository}: {reason}") from error
