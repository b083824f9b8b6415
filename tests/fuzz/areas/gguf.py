"""Changed GGUF files to the reader, inspect, doctor and quantize: no C code sees them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.fuzz.ggufs import hostile
from tests.fuzz.worker import WrongError, command, nothing_left
from tests.making import checkpoints
from tests.making.checkpoints import CARD, Case, config

TYPES = ("F32", "BF16", "Q8_0")
LAYERS = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}


def prepare(base: Path) -> None:
    """Make a small model as GGUF files of a few types."""
    from lfm2gguf import convert

    if not (base / "Q8_0.gguf").exists():
        case = Case(config(**LAYERS), card=CARD, generation={"temperature": 0.3, "min_p": 0.15})
        checkpoints.make(case, base / "LFM2-Small")
        for type in TYPES:
            convert(base / "LFM2-Small", base / f"{type}.gguf", type, jobs=1)


def make_from(base: Path, draw: random.Random) -> tuple[str, bytes]:
    """Return what was changed, and the bytes."""
    return hostile((base / f"{draw.choice(TYPES)}.gguf").read_bytes(), draw)


def make(draw: random.Random, base: Path, folder: Path) -> str:
    label, data = make_from(base, draw)
    (folder / "f.gguf").write_bytes(data)
    return label


def check(base: Path, folder: Path) -> str:
    """Show it, look for what is wrong with it, and quantize it."""
    from lfm2gguf import quantize
    from lfm2gguf.gguf_file import GGUFFile

    path, out = folder / "f.gguf", folder / "out"
    out.mkdir()
    command("inspect", path, "--full")
    command("doctor", path)
    for name in ("inspect", "doctor"):
        code, said = command(name, path, "--json")
        if code != 2:
            json.loads(said)
    with nothing_left(out):
        quantize(path, out, ["Q8_0", "Q4_K_M"], jobs=1, allow_requantize=True)
    files = sorted(out.iterdir())
    if len(files) != 2:
        raise WrongError(f"quantize leaves {len(files)} files in place of 2")
    for file in files:
        GGUFFile.open(file)
        if file.stat().st_size > 64 * path.stat().st_size + (16 << 20):
            raise WrongError("quantize writes 64 times what it was given")
    return "ok"
