"""Draw README's picture: commands of a first hour, run as they stand, as a terminal shows them.

    python .github/docs/picture.py            # writes first-run.svg beside this file

The example model is converted, verified and run in a temporary folder. It needs a terminal as
POSIX has them. What the picture says of time is of the machine that drew it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
TARGET = Path(__file__).with_name("first-run.svg")
WIDTH = 112
COMMANDS = (
    "lfm2gguf convert tiny-lfm2 -t Q4_K_M,Q8_0 -o out/",
    "lfm2gguf verify out/ --reference tiny-lfm2 --chunks 4",
    "lfm2gguf run out/Tiny-Lfm2-3.9M-Q8_0.gguf --tools tools.json -p 'What time is it in Geneva?'",
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": CITY}}
FONT = re.compile(r"@font-face \{.*?\}\n", re.DOTALL)


def main() -> None:
    """Run the commands and write the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tiny-lfm2").symlink_to(ROOT / "examples" / "tiny-lfm2")
        Path(folder, "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
        for command in COMMANDS:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(shown(command, Path(folder))))
            console.print()
    # The reader's own monospaced font: a picture that fetches nothing.
    svg = FONT.sub("", console.export_svg(title="lfm2gguf", unique_id="lfm2gguf"))
    svg = "\n".join(line.rstrip() for line in svg.replace("Fira Code, ", "").splitlines())
    TARGET.write_text(svg + "\n", encoding="utf-8")


def shown(command: str, folder: Path) -> str:
    """Return what a command leaves on a terminal: its output, and the last of its notes."""
    import pty

    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(WIDTH)}
    words = [sys.executable, "-m", "lfm2gguf_cli.main", *shlex.split(command)[1:]]
    with subprocess.Popen(
        words, cwd=folder, env=environment, stdout=child, stderr=subprocess.PIPE
    ) as process:
        os.close(child)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes there any more
            while part := os.read(parent, 65536):
                said += part
        notes = process.stderr.read().decode() if process.stderr else ""
    os.close(parent)
    if process.returncode:
        sys.exit(f"{command}: {notes}")
    lines = [*said.decode().replace("\r", "").strip("\n").splitlines(), *notes.splitlines()[-1:]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
