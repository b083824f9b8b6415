"""Changed checkpoint folders to inspect, doctor and convert: JSON, weights, cards, templates."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

from tests.fuzz.areas import gguf
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
from tests.making.checkpoints import CARD

PWNED = Path("/tmp/lfm2gguf-fuzz-yaml-ran-code")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join('*' + chr(97 + i) for _ in range(10))}]\n"
    for i in range(8)
)
YAML = (
    "license: [mit", "&a [*a]", "- a\n- b", "3", "", f"{ALIASES}tags: *i", "license: &x {a: *x}",
    f"tags: !!python/object/apply:os.system ['touch {PWNED}']", "base_model: [1, {a: b}, null]",
    "license: 2024-01-01\nlanguage: yes\ntags: 3", "base_model: " + "a/" * 2000,
    "language:\n  en: de", "datasets: [[[[]]]]", "[" * 3000, "model_name: 3.5", "license: \x00",
    "model-index: [{name: 1}]", "name: !!binary aGk=", "tags: !!set {a, b}", "tags: [{a: b}]",
    "license: .nan\ntags: [.inf, -.inf]", "license: mit\nlicense: other", "language: [null]",
    "license_link: [a]\nlicense_name: {}",
)  # fmt: skip
TEMPLATES = (b"{% for", b"\xff\xfe", b"", b"{{ 1/0 }}", b"a" * 10**6, b"\x00",
             b"{% include '/etc/passwd' %}")  # fmt: skip
NAMED = ([], {}, 3, [{"name": "a b/../c", "template": "x"}], [{"name": "\ud800", "template": "x"}],
         [{"name": "x", "template": "y"}] * 2, {"default": 3}, [None], [{"name": ""}])  # fmt: skip

# What a change raises that comes after another one.
DO_NOT_GO_TOGETHER = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError,
                      RecursionError, struct.error)  # fmt: skip
prepare = gguf.prepare


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a folder."""
    source = folder / "m"
    shutil.copytree(base / "LFM2-Small", source)
    labels = []
    for _ in range(draw.choice([1, 1, 1, 2])):
        change = draw.choice(CHANGES)
        with contextlib.suppress(*DO_NOT_GO_TOGETHER):
            change(source, draw)
        labels.append(change.__name__.lstrip("_"))
    return " + ".join(labels)


def check(base: Path, folder: Path) -> str:
    """Show it, look for what is wrong with it, and convert it."""
    from lfm2gguf import convert
    from lfm2gguf.gguf_file import GGUFFile

    source, out = folder / "m", folder / "out"
    out.mkdir()
    size = sum(f.stat().st_size for f in source.iterdir() if f.is_file())
    for name in ("inspect", "doctor"):
        command(name, source)
        code, said = command(name, source, "--json")
        if code != 2:
            json.loads(said)
    if PWNED.exists():
        PWNED.unlink()
        raise WrongError("a model card ran code")
    with nothing_left(out):
        result = convert(source, out, ["Q8_0", "Q4_K_M"], jobs=1)
    files = sorted(out.iterdir())
    if len(files) != 2 or {f.path for f in result.files} != set(files):
        raise WrongError(f"{len(files)} files in place of 2, or elsewhere")
    for file in files:
        GGUFFile.open(file)
        if file.stat().st_size > 4 * size + (1 << 20):
            raise WrongError("the file is much larger than the checkpoint")
    return "ok"


def _some_json(folder: Path, draw: random.Random) -> None:
    names = [p for p in sorted(folder.iterdir()) if p.suffix == ".json" and p.is_file()]
    path = draw.choice([*names, folder / "config.json", folder / "config.json"])
    path.write_bytes(json_bytes(changed_json(json.loads(path.read_text()), draw), draw))


def _deep_json(folder: Path, draw: random.Random) -> None:
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
             "special_tokens_map.json", "chat_template.json", INDEX, "params.json",
             "adapter_config.json", "modules.json", "1_Pooling/config.json"]  # fmt: skip
    path = folder / draw.choice(names)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(deep_text(draw))


def _tokenizer(folder: Path, draw: random.Random) -> None:
    path = folder / "tokenizer.json"
    t = json.loads(path.read_text())
    vocab = t["model"]["vocab"]
    merges = [[], None, {}, "x", [["a"]], [["a", "b", "c"]], ["ab"], [[1, 2]], [None], [[]],
              [["zz", "yy"]], [["h", "e"]] * 1000, ["h e", ["t", "he"]], [{"a": 1}]]  # fmt: skip
    added = [None, {}, [None], [3], "x", [[]], [{}], [{"id": 2**40, "content": "x"}], [{"id": 0}],
             [{"content": "x"}], t["added_tokens"] * 2]  # fmt: skip
    parts = [None, {}, [], {"type": "ByteLevel"}, {"type": "Sequence", "pretokenizers": None},
             {"type": "Sequence", "pretokenizers": [None, None]}, any_json(draw)]  # fmt: skip
    models = [None, [], {}, "BPE", {"type": "BPE"}, {"type": "Unigram", "vocab": []},
              {"type": ["BPE"]}]  # fmt: skip
    ids = [-1, 1.5, "3", None, True, 2**31, 2**63, 10**30, 299, 300, 5, [], {}]
    kind = draw.randrange(8)
    if kind == 0:
        vocab[draw.choice(list(vocab))] = draw.choice(ids)
    elif kind == 1:
        t["model"]["merges"] = draw.choice(merges)
    elif kind == 2:
        draw.choice(t["added_tokens"])[draw.choice(["id", "content", "special"])] = any_json(draw)
    elif kind == 3:
        t["added_tokens"] = draw.choice(added)
    elif kind == 4:
        t["pre_tokenizer"] = draw.choice(parts)
    elif kind == 5:
        t["model"]["vocab"] = draw.choice([None, [], {}, {"a": 0}, [["a", 0.0]], "x"])
    elif kind == 6:
        t["model"] = draw.choice(models)
    else:
        vocab[draw.choice(TEXTS)] = draw.choice([299, 299, 0, 300])
    path.write_bytes(json_bytes(t, draw))


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return a safetensors file's header and data."""
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def put(path: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    """Write a safetensors file."""
    n = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", n) + header + data)


def _entry(folder: Path, draw: random.Random) -> None:
    header, data = parts(folder / WEIGHTS)
    name = draw.choice([key for key in header if key != "__metadata__"])
    entry, kind = header[name], draw.randrange(6)
    shape, offsets = entry["shape"], entry["data_offsets"]
    if kind == 0:
        entry["dtype"] = draw.choice(["F32", "F16", "F64", "I8", "BOOL", "F8_E4M3", "F4", "bf16",
                                      "", 3, None, [], "F8_E8M0", "C64"])  # fmt: skip
    elif kind == 1:
        entry["shape"] = draw.choice([[], [0], [-1], shape[::-1], [*shape, 1], [1, *shape], [2**64],
                                      [2**40, 2**40], "x", None, [1.5], [True], [[1]], {},
                                      [draw.choice(NUMBERS)] * 2])  # fmt: skip
    elif kind == 2:
        entry["data_offsets"] = draw.choice([
            [0, 0], [1, 2], [], [0], [-2, 0], [2**63, 2**64], offsets[::-1], None, "ab", {},
            [0.0, 2.0], [1, 2, 3], [True, False], [n + 2 for n in offsets],
        ])  # fmt: skip
    elif kind == 3:
        del header[name]
    elif kind == 4:
        more = ["model.layers.99.conv.conv.weight", "lm_head.weight", "optimizer.x"]
        header[draw.choice([*TEXTS, *more])] = header.pop(name)
    else:
        other = draw.choice(list(header))
        header[name], header[other] = header[other], header[name]
    put(folder / WEIGHTS, json_bytes(header, draw), data)


def _header(folder: Path, draw: random.Random) -> None:
    header, data = parts(folder / WEIGHTS)
    text, kind = json.dumps(header).encode(), draw.randrange(6)
    if kind == 0:
        twice = text[:-1] + b', "model.embed_tokens.weight": 0}'
        put(folder / WEIGHTS, twice, data)
    elif kind == 1:
        put(folder / WEIGHTS, text, data, draw.choice([*NUMBERS, len(text) - 1, len(text) + 1]))
    elif kind == 2:
        put(folder / WEIGHTS, deep_text(draw), data)
    elif kind == 3:
        some = [b"\xff\xfe{}", b"null", b"[]", b"3", b"{", b"", b'{"a": NaN}', b"{}"]
        put(folder / WEIGHTS, draw.choice(some), data)
    elif kind == 4:
        raw = (folder / WEIGHTS).read_bytes()
        window = draw.choice([16, len(text), len(raw)])
        (folder / WEIGHTS).write_bytes(changed_bytes(raw, draw, window))
    else:
        put(folder / WEIGHTS, json_bytes(changed_json(header, draw), draw), data)


def _weights(folder: Path, draw: random.Random) -> None:
    header, data = parts(folder / WEIGHTS)
    kind = draw.randrange(3)
    if kind == 0:
        data = data[: draw.randrange(len(data))]
    elif kind == 1:
        data += draw.randbytes(draw.choice([1, 8, 4096]))
    else:
        some, at = bytearray(data), draw.randrange(len(data) - 2) & ~1
        bad = [b"\x80\x7f", b"\xc0\x7f", b"\x80\xff", b"\x7f\x7f", b"\x01\x00", b"\x00\x80"]
        some[at : at + 2] = draw.choice(bad)
        data = bytes(some)
    put(folder / WEIGHTS, json.dumps(header).encode(), data)


def _index(folder: Path, draw: random.Random) -> None:
    names = [name for name in parts(folder / WEIGHTS)[0] if name != "__metadata__"]
    shard = draw.choice([WEIGHTS, "model-00001-of-00001.safetensors"])
    (folder / WEIGHTS).rename(folder / shard)
    index: Any = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    name, kind = draw.choice(names), draw.randrange(6)
    files = ["../model.safetensors", "/etc/passwd", "", ".", "..", "x" * 300, "a\0b", 3, None, [],
             "config.json", "model-2.safetensors", "tokenizer.json", "\ud800"]  # fmt: skip
    if kind == 0:
        index["weight_map"][name] = draw.choice(files)
    elif kind == 1:
        del index["weight_map"][name]
    elif kind == 2:
        index["weight_map"]["extra.weight"] = shard
    elif kind == 3:
        (folder / "loop").symlink_to("loop")
        index["weight_map"][name] = "loop"
    elif kind == 4:
        (folder / "dir.safetensors").mkdir()
        index["weight_map"][name] = "dir.safetensors"
    else:
        index = changed_json(index, draw)
    (folder / INDEX).write_bytes(json_bytes(index, draw))


def _template(folder: Path, draw: random.Random) -> None:
    (folder / "chat_template.jinja").write_bytes(draw.choice(TEMPLATES))
    if draw.random() < 0.5:
        value = {"chat_template": any_json(draw)}
        (folder / "chat_template.json").write_bytes(json_bytes(value, draw))
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"chat_template": draw.choice(NAMED)})
    )


def _card(folder: Path, draw: random.Random) -> None:
    text = f"---\n{draw.choice(YAML)}\n---\n".encode()
    card = text if draw.random() < 0.7 else changed_bytes(CARD.encode(), draw)
    (folder / "README.md").write_bytes(card)


def _file(folder: Path, draw: random.Random) -> None:
    path = draw.choice(sorted(folder.iterdir()))
    before, kind = path.read_bytes(), draw.randrange(6)
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to(os.devnull)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind < 5:
        path.write_bytes(draw.choice([b"", draw.randbytes(100)]))
    else:
        path.write_bytes(b"\xef\xbb\xbf" + before)


CHANGES = (_some_json, _some_json, _some_json, _deep_json, _tokenizer, _tokenizer, _entry, _entry,
           _header, _weights, _index, _template, _card, _file)  # fmt: skip
