"""The pages of the site: the repository's own texts, the commands' help, the public names.

A hook of MkDocs (https://www.mkdocs.org/user-guide/configuration/#hooks). Nothing is written twice:
links between files of the repository become links between pages, and links to files that have no
page lead to the repository where its address is known (``GITHUB_REPOSITORY``), else they are text.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {  # a file of the repository: its page
    "README.md": "index.md",
    ".github/CHANGELOG.md": "project/changelog.md",
    ".github/CONTRIBUTING.md": "project/contributing.md",
    ".github/SECURITY.md": "project/security.md",
}
PAGES |= {
    path.relative_to(ROOT).as_posix(): f"guide/{path.parent.name}.md"
    for path in sorted((ROOT / "examples").glob("*/README.md"))
}
PICTURES = {
    path.relative_to(ROOT).as_posix(): f"pictures/{path.name}"
    for pattern in ("examples/*/*.png", "examples/*/*.svg", ".github/**/*.svg")
    for path in sorted(ROOT.glob(pattern))
}
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<to>[^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the repository's address from the workflow that builds the site."""
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        config.repo_url = f"https://github.com/{repository}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page."""
    pages = {
        page: linked((ROOT / file).read_text("utf-8"), file, page, config.repo_url)
        for file, page in PAGES.items()
    }
    pages["reference/cli.md"] = command_line()
    pages["reference/api.md"] = python_names()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    for file, home in PICTURES.items():
        files.append(File.generated(config, home, abs_src_path=str(ROOT / file)))
    return files


def linked(text: str, file: str, page: str, repository: str | None) -> str:
    """Return a file's text with its links leading to where they lead on the site."""

    def link(match: re.Match[str]) -> str:
        to, _, anchor = match["to"].partition("#")
        if not to or "://" in to or to.startswith("mailto:"):
            return match[0]
        target = normpath(f"{Path(file).parent.as_posix()}/{to}")
        target = target if not (ROOT / target / "README.md").is_file() else f"{target}/README.md"
        assert (ROOT / target).exists(), f"{file} links to {to}, which is not there"
        if home := PAGES.get(target) or PICTURES.get(target):
            way = relpath(home, Path(page).parent.as_posix())
            return f"[{match['text']}]({way}{'#' + anchor if anchor else ''})"
        if repository:
            return f"[{match['text']}]({repository}/blob/HEAD/{target})"
        return match["text"]

    pieces = []
    end = 0
    for code in CODE.finditer(text):  # which is left as it stands
        pieces += [LINK.sub(link, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, LINK.sub(link, text[end:])])


def command_line() -> str:
    """Return every command's help, from the commands themselves."""
    import typer

    from lfm2gguf_cli.main import COMMANDS, make_app

    lines = [
        "# Command line",
        "",
        "Every command has `--help`; those that report have `--json`.",
        "",
    ]
    for name, summary in COMMANDS.items():
        command: Any = typer.main.get_command(make_app([name]))
        lines += [f"## {name}", "", summary, "", *_command(name, command.commands[name])]
    return "\n".join(lines)


def _command(name: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["lfm2gguf", name, *map(_metavar, arguments)])
    text = (command.help or "").replace("\n\nExample: ", "\n\n    $ ").strip()
    lines = ["```console", f"$ {usage} [OPTIONS]", "```", "", text, ""]
    lines += ["| option | what it is | default |", "| --- | --- | --- |"]
    for parameter in [*arguments, *options]:
        lines.append(f"| {' | '.join(map(_cell, _row(parameter)))} |")
    return [*lines, ""]


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _row(parameter: Any) -> tuple[str, str, str]:
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = ", ".join(f"`{n}`" for n in names)
    if parameter.param_type_name == "argument":
        shown = f"`{_metavar(parameter)}`"
    default = parameter.show_default if isinstance(parameter.show_default, str) else ""
    if not default and isinstance(parameter.default, str | int | float):
        default = "" if parameter.default is False else str(parameter.default)
    return shown, getattr(parameter, "help", None) or "", default


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def python_names() -> str:
    """Return the public names of the package, for mkdocstrings to describe."""
    package = import_module("lfm2gguf")
    homes: dict[str, list[str]] = {}
    for name in package.__all__:
        value = getattr(package, name)
        home = package._HOME.get(name)
        if home and callable(value):
            homes.setdefault(home, []).append(name)
    lines = ["# Python", "", "What is below is `lfm2gguf.NAME`, loaded when it is first used.", ""]
    for home, names in homes.items():
        lines += [f"## {home}", ""]
        lines += [f"::: {home}.{name}\n" for name in names]
    lines += ["## lfm2gguf.errors", "", "::: lfm2gguf.errors", "    options:"]
    lines += ["      show_root_heading: false", "      show_root_toc_entry: false", ""]
    return "\n".join(lines)
