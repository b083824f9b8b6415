"""Plans of real models, by their configs: no weight is read, so the files hold none."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.conversion import draft_conversion
from lfm2gguf.pipeline import Draft
from tests.benchmarks.make_checkpoint import shapes
from tests.checkpoints import tokenizer, write_json
from tests.realdata import DATA

# Published: tensors by type, and bytes where the whole file's are known. The tokenizer here is
# a small one, so that the files are smaller than theirs by their vocabularies' text.
PUBLISHED = {
    ("partial/LFM2-8B-A1B", "Q4_K_M"): {"F32": 123, "Q4_K": 118, "Q6_K": 15},
    ("partial/LFM2.5-8B-A1B", "Q4_K_M"): {"F32": 123, "Q4_K": 118, "Q6_K": 15},
    ("LFM2.5-1.2B-Instruct", "Q4_0"): {"Q4_0": 92, "F32": 55, "Q6_K": 1},
}


def drafted(config: dict[str, Any], folder: Path, type: str) -> Draft:
    """The draft for a checkpoint whose one file is a hole behind its header."""
    folder.mkdir()
    write_json(folder / "config.json", config)
    for name, content in tokenizer().items():
        write_json(folder / name, content)
    header, offset = {}, 0
    for name, shape in shapes(config).items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    plan, drafts = draft_conversion(folder, folder, type)
    assert not plan.left_out
    return drafts[0]


@pytest.mark.parametrize(("name", "type"), PUBLISHED)
def test_the_published_counts_come_out(name: str, type: str, tmp_path: Path) -> None:
    path = DATA / "configs" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent (LFM2GGUF_TEST_DATA may name another folder)")
    draft = drafted(json.loads(path.read_text()), tmp_path / "model", type)
    assert draft.type_counts == PUBLISHED[name, type]
    assert draft.layout.size > sum(tensor.nbytes for tensor in draft.tensors)
