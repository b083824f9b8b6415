"""The command that installs more of this package, from where it came."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

NAME = "lfm2gguf"


def install_command(extra: str = "", *options: str) -> str:
    """Return the command line by which pip installs the package, here with an extra.

    An installer notes in ``direct_url.json`` where it took a package from (PEP 610): a checkout,
    a repository or an archive; what came from an index has no such note.
    """
    name = f"{NAME}[{extra}]" if extra else NAME
    where = f"[{extra}]" if extra else ""
    return " ".join(["pip install", *options, _target(_origin(), name, where)])


def install_elsewhere(extra: str = "") -> str:
    """Return the command for another machine: from an address that is not this one's, or an index.

    Of a checkout, whose folder nobody else has, a remark says what to do before there is a release.
    """
    origin = _origin()
    name = f"{NAME}[{extra}]" if extra else NAME
    parts = urlsplit(str(origin.get("url", "")))
    if parts.scheme in ("http", "https", "ssh") and "dir_info" not in origin:
        host = parts.netloc.rpartition("@")[2]  # no name, no token
        url = urlunsplit((parts.scheme, host, *parts[2:]))
        return f"pip install {_target(origin | {'url': url}, name, '')}"
    where = f"[{extra}]" if extra else ""
    remark = f'  # in a checkout: pip install ".{where}"' if origin else ""
    return f'pip install "{name}"{remark}'


def _origin() -> dict[str, object]:
    """Return the installer's note, ``{}`` of an index; of a checkout that none made, its folder."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        note = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        root = Path(__file__).parents[1]
        if not (root / "pyproject.toml").is_file():
            return {}
        return {"url": root.as_uri(), "dir_info": {"editable": True}}
    try:
        origin = json.loads(note or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _target(origin: dict[str, object], name: str, extra: str) -> str:
    """Return what stands behind ``pip install`` for a note, as a shell takes it."""
    url = str(origin.get("url", ""))
    if not url:
        return f'"{name}"'
    if isinstance(folder := origin.get("dir_info"), dict):
        from urllib.request import url2pathname  # which imports all of HTTP and TLS

        path = url2pathname(urlsplit(url).path)
        return f'{"-e " if folder.get("editable") else ""}"{path}{extra}"'
    if isinstance(vcs := origin.get("vcs_info"), dict):
        revision = vcs.get("requested_revision") or vcs.get("commit_id") or ""
        url = f"{vcs.get('vcs', 'git')}+{url}{f'@{revision}' if revision else ''}"
    place = origin.get("subdirectory")
    return f'"{name} @ {url}{f"#subdirectory={place}" if place else ""}"'
