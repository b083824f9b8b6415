"""Plans of the real models against what is published of them; the weights are holes in files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from lfm2gguf.conversion import plan
from lfm2gguf.errors import UnsupportedError
from tests.benchmarks.make_checkpoint import shapes
from tests.making.realdata import needs, path_of

# Weights, from the model cards.
MODELS = {
    "LFM2-350M": 354_483_968,
    "LFM2-1.2B": 1_170_340_608,
    "LFM2.5-1.2B-Base": 1_170_340_608,
    "LFM2.5-1.2B-Instruct": 1_170_340_608,
    "LFM2.5-1.2B-JP": 1_170_340_608,
}


def hollow(folder: Path, config: Path, tokenizer: Path) -> Path:
    """A checkpoint of the true shapes that takes no room: its weights are a sparse file."""
    about = json.loads(config.read_text())
    header, end = {}, 0
    for name, shape in shapes(about).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    for source in tokenizer.iterdir():
        if source.suffix in (".json", ".jinja"):
            (folder / source.name).write_bytes(source.read_bytes())
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@needs("configs")
@needs("LFM2.5-1.2B-Base")
@pytest.mark.parametrize("name", MODELS)
def test_a_plan(name: str, tmp_path: Path) -> None:
    config, tokenizer = path_of("configs") / f"{name}.json", path_of("LFM2.5-1.2B-Base")
    source = hollow(tmp_path / name, config, tokenizer)
    q4_0, q4_k_m = plan(source, tmp_path, ["Q4_0", "Q4_K_M"]).drafts
    assert q4_0.n_weights == MODELS[name]
    assert q4_0.type_counts == {"Q4_0": 92, "F32": 55, "Q6_K": 1}
    assert q4_0.target.name == f"{name}-Q4_0.gguf"
    if "1.2B" in name:
        assert q4_k_m.layout.size == pytest.approx(731e6, rel=0.002)  # Liquid AI's own file
        assert q4_0.layout.size == pytest.approx(695_755_488, rel=1e-5)


@needs("configs")
@needs("LFM2-1.2B")
def test_encoders_are_refused_by_name(tmp_path: Path) -> None:
    for config in sorted(path_of("configs").glob("LFM2.5-Encoder-*.json")):
        source = hollow(tmp_path / config.stem, path_of("configs") / "LFM2-350M.json",
                        path_of("LFM2-1.2B"))  # fmt: skip
        (source / "config.json").write_bytes(config.read_bytes())
        architecture = json.loads(config.read_text())["architectures"][0]
        with pytest.raises(UnsupportedError, match=architecture):
            plan(source, tmp_path)
