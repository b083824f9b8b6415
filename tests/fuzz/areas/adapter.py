"""Changed LoRA adapters: merged on the way (convert --lora), converted (convert-lora), examined."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.areas.checkpoint import parts, put
from tests.fuzz.mutation import (
    NUMBERS,
    TEXTS,
    any_json,
    changed_bytes,
    changed_json,
    deep_text,
    json_bytes,
)
from tests.fuzz.worker import WrongError, command, nothing_left
from tests.making import adapters

KINDS = ("plain", "dora", "patterns", "modules-to-save")
PATTERNS = ("(a+)+$", "(.*)*x", "(", "[", ".*", "", "q_proj", "\\", "(?P<a>x)(?P=a)", "a{99999}",
            "(?i)Q", "((((((((((x))))))))))", "x" * 3000, "(?R)", "(?<=a+)b", "(x|x)*y",
            "(a|b|ab)*c", ".*.*.*.*.*x")  # fmt: skip
KEYS = ("lora_alpha", "r", "use_rslora", "use_dora", "target_modules", "modules_to_save", "bias",
        "alora_invocation_tokens", "fan_in_fan_out", "target_parameters", "layers_to_transform",
        "base_model_name_or_path", "exclude_modules", "peft_type")  # fmt: skip


def prepare(base: Path) -> None:
    """Make a base and adapters of a few kinds."""
    if not (base / KINDS[-1]).exists():
        adapters.make_base(adapters.CASES["plain"], base / "LFM2-Base")
        for kind in KINDS:
            adapters.make_adapter(adapters.CASES[kind], base / kind)


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write an adapter."""
    kind = draw.choice(KINDS)
    shutil.copytree(base / kind, folder / "a")
    config, weights = folder / "a/adapter_config.json", folder / "a/adapter_model.safetensors"
    settings, raw = json.loads(config.read_text()), weights.read_bytes()
    header, data = parts(weights)
    if draw.random() < 0.45:
        label = f"{kind} config"
        settings = _config(settings, draw)
    elif draw.random() < 0.2:
        window = draw.choice([16, len(raw) - len(data), len(raw)])
        weights.write_bytes(draw.choice([changed_bytes(raw, draw, window), deep_text(draw)]))
        return f"{kind} bytes"
    else:
        label, header, data = f"{kind} weights", *_weights(header, data, draw)
    put(weights, json_bytes(header, draw), data)
    config.write_bytes(json_bytes(settings, draw))
    return label


def _config(settings: dict[str, Any], draw: random.Random) -> Any:
    kind, numbers = draw.randrange(3), [draw.choice(NUMBERS), 1e-300, 1e37, -8, 0.5]
    if kind == 0:
        return changed_json(settings, draw)
    if kind == 1:
        pattern = {draw.choice(PATTERNS): draw.choice([any_json(draw), 4])}
        return settings | {draw.choice(["rank_pattern", "alpha_pattern"]): pattern}
    return settings | {draw.choice(KEYS): draw.choice([any_json(draw), *numbers])}


def _weights(header: Any, data: bytes, draw: random.Random) -> tuple[Any, bytes]:
    name = draw.choice([key for key in header if key != "__metadata__"])
    entry, kind = header[name], draw.randrange(6)
    if kind == 0:
        other = ("layers.", "layers.9"), ("lora_A", "lora_B"), ("weight", "bias"), ("q_p", "z_p")
        names = [name.replace(*pair) for pair in (*other, ("base_model.model.", ""))]
        header[draw.choice([*TEXTS, *names, f"{name}.x"])] = header.pop(name)
    elif kind == 1:
        s = entry["shape"]
        entry["shape"] = draw.choice([s[::-1], [*s, 1], [1, *s], [], [0], [2 * s[0], s[-1] // 2],
                                      [s[0] // 2, s[-1] * 2], [-1, 4]])  # fmt: skip
    elif kind == 2:
        del header[name]
    elif kind == 3:
        entry["dtype"] = draw.choice(["BF16", "F16", "I32", "F64", "F8_E4M3"])
    elif kind == 4:
        some = bytearray(data)
        for _ in range(draw.choice([1, 50])):
            at = draw.randrange(0, len(some) - 4, 4)
            bad = [b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0"]
            some[at : at + 4] = draw.choice(bad)
        data = bytes(some)
    else:
        header = changed_json(header, draw)
    return header, data


def check(base: Path, folder: Path) -> str:
    """Merge it and convert it; a file that comes of it holds numbers only."""
    import numpy as np

    from lfm2gguf import convert, convert_lora
    from lfm2gguf.gguf_file import GGUFFile

    out, adapter, model = folder / "out", folder / "a", base / "LFM2-Base"
    out.mkdir()
    command("doctor", adapter)
    made = [
        _made(out, lambda: convert(model, out / "m.gguf", "F32", lora=adapter, jobs=1)),
        _made(out, lambda: convert_lora(adapter, model, out / "l.gguf", "F32")),
    ]
    for path in out.iterdir():
        file = GGUFFile.open(path)
        for name in file.tensors:
            values = np.asarray(file.data(name)).view(np.float32)
            if not np.isfinite(values).all():
                raise WrongError(f"{path.name} holds NaN or infinity")
    return " and ".join(sorted(set(made)))


def _made(out: Path, work: Callable[[], object]) -> str:
    from lfm2gguf import Lfm2ggufError

    try:
        with nothing_left(out):
            work()
    except Lfm2ggufError:
        return "refused"
    return "ok"
