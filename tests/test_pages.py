"""The repository's own pages: links that lead somewhere, a picture that fetches nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / ".github/docs/first-run.svg"
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)(?P<to>[^)\s#]*)(#(?P<anchor>[^)\s]+))?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob(".github/*.md"))
    if path.name != "PULL_REQUEST_TEMPLATE.md"
)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.replace(" ", "-") for head in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(CODE.sub("", page.read_text("utf-8"))):
        target = (page.parent / match["to"]).resolve() if match["to"] else page
        assert target.exists(), match[0]
        if match["anchor"]:
            assert match["anchor"] in anchors(target), match[0]


def test_the_picture_fetches_nothing() -> None:
    root = ElementTree.fromstring(PICTURE.read_text("utf-8"))
    assert not [e for e in root.iter() if e.tag.endswith(("image", "script", "foreignObject"))]
    assert not re.findall(r"url\(\s*[\"']?https?:", PICTURE.read_text("utf-8"))
    assert "lfm2gguf" in "".join(root.itertext())
    assert "](.github/docs/first-run.svg)" in (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def hook() -> Any:
    """The hook that gives the package its metadata."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    spec = importlib.util.spec_from_file_location("hook", ROOT / ".github/docs/package_metadata.py")
    assert spec
    assert spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


def test_the_packages_readme_has_no_link_that_needs_the_repository(hook: Any) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert not LINK.search(CODE.sub("", hook.detached(readme, None)))
    held = hook.detached(readme, "https://github.com/me/it")
    assert not LINK.search(CODE.sub("", held))
    assert "](https://github.com/me/it/blob/HEAD/examples/ci/README.md)" in held
    assert "](https://github.com/me/it/raw/HEAD/.github/docs/first-run.svg)" in held


@pytest.mark.parametrize("repository", [None, "me/it"])
def test_the_packages_urls(repository: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = pytest.importorskip("hatchling.metadata.core", reason="hatchling is not installed")
    plugins = pytest.importorskip("hatchling.plugin.manager").PluginManager()
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    if repository:
        monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    urls = builder.ProjectMetadata(str(ROOT), plugins).core.urls
    assert urls["LFM2 models"] == "https://huggingface.co/LiquidAI"
    assert urls.get("Issues") == (repository and "https://github.com/me/it/issues")
    if repository:
        assert (ROOT / urls["Changelog"].partition("/blob/HEAD/")[2]).is_file()
