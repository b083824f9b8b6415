"""Pictures of the pages, as a phone and a desktop show them.

    python examples/pages/screenshots.py [FOLDER]

It makes the ladder of types of examples/tiny-lfm2, judges and measures it, serves one file, and
looks at each page in headless Chromium. It needs lfm2gguf[bench,serve,verify], playwright and
pillow, and a Chromium on the PATH or named by LFM2GGUF_CHROMIUM. Two minutes on two cores.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from lfm2gguf import Runner
from lfm2gguf.server import create_app
from lfm2gguf.server.serving import listen

HERE = Path(__file__).parent
MODEL = HERE.parent / "tiny-lfm2"
TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark",
              "is_mobile": True, "has_touch": True},
}  # fmt: skip


def command(*arguments: str | Path) -> None:
    """Run lfm2gguf; a gate that fails or a wrong option ends the script."""
    subprocess.run(["lfm2gguf", *map(str, arguments)], check=True)


def file_of(folder: Path, type: str) -> Path:
    """Return the file of a type."""
    return next(folder.glob(f"*-{type}.gguf"))


def reports(folder: Path) -> dict[str, Path]:
    """Make the two reports; their pages by name."""
    types = [word for type in TYPES for word in ("-t", type)]
    command("convert", MODEL, *types, "-o", folder, "-q")
    verify, bench = folder / "verify.html", folder / "bench.html"
    command("verify", folder, "-r", MODEL, "--html", verify, "-q")
    command(
        "bench", file_of(folder, "Q4_K_M"), "--contexts", "128,256,512", "--workloads",
        "chat", "--runs", "3", "--warmups", "1", "--html", bench, "-q",
    )  # fmt: skip
    return {"verify": verify, "bench": bench}


@contextlib.contextmanager
def served(file: Path) -> Iterator[str]:
    """Serve a file; the address."""
    with Runner(file, device="cpu") as lfm, listen("127.0.0.1", 0) as socket:
        app = create_app(lfm)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def converse(tab: Any) -> None:
    """Have a conversation with a tool call."""
    tab.click("#open-settings")
    tab.fill("#temperature", "0")
    tab.click("#example")
    tab.click("#fields .main")
    for text in ("Who are you?", "What is the weather in Boston?"):
        tab.fill("#input", text)
        tab.click("#send")
        tab.wait_for_selector("#send:not([hidden])")
    tab.fill(".call textarea", '{"temperature": 21, "sky": "sunny"}')
    tab.click(".calls .main")
    tab.wait_for_selector("#send:not([hidden])")
    tab.locator(".result + .answer .figures").wait_for()


def save(tab: Any, path: Path) -> None:
    """Save what is in view, in as few colours as such a page has."""
    picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


def main(folder: Path) -> None:
    """Make all pictures."""
    found = os.environ.get("LFM2GGUF_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        pages = reports(Path(made))
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        with served(file_of(Path(made), "Q8_0")) as address:
            for size, look in SIZES.items():
                tab = browser.new_context(**look).new_page()
                tab.goto(address)
                converse(tab)
                save(tab, folder / f"chat-{size}.png")
                addresses = {name: page.as_uri() for name, page in pages.items()}
                for name, page in (addresses | {"docs": f"{address}docs"}).items():
                    tab.goto(page)
                    if name == "docs":
                        tab.locator("summary").first.click()
                    save(tab, folder / f"{name}-{size}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
