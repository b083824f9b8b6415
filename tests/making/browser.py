"""A headless Chromium, for pages as a person meets them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True,
                         "has_touch": True}  # fmt: skip
DESKTOP: dict[str, Any] = {"viewport": {"width": 1400, "height": 900}}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium, or skip the test and say why."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    given = os.environ.get("LFM2GGUF_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is on the PATH, and LFM2GGUF_CHROMIUM names none")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox"]  # the pages are ours, and containers run as root
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


def screenshot(tab: Any, name: str, folder: Path, **options: Any) -> Path:
    """Save what a tab shows, where ``LFM2GGUF_SCREENSHOTS`` says or in a folder of the test's."""
    path = Path(os.environ.get("LFM2GGUF_SCREENSHOTS", folder)) / f"{name}.png"
    tab.screenshot(path=str(path), **options)
    return path
