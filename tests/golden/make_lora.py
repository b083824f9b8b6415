"""Make lora.json: what peft's merge_and_unload makes of the adapters in tests/adapters.py.

    python -m tests.golden.make_lora

Needs torch, transformers 5 and peft 0.21. Of every weight that the merge changes, some values.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.making.adapters import CASES, AdapterCase, base, make_adapter
from tests.making.checkpoints import make

TARGET = Path(__file__).with_name("lora.json")
VALUES = 24


def merged(case: AdapterCase, folder: Path) -> dict[str, list[float]]:
    make(base(case), folder / "base")
    make_adapter(case, folder / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    before = {name: x.clone() for name, x in plain.state_dict().items()}
    model = PeftModel.from_pretrained(plain, folder / "adapter")
    loaded = model.load_adapter(folder / "adapter", "again")
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "again" in key], loaded.missing_keys
    model.delete_adapter("again")
    after = model.merge_and_unload().state_dict()
    assert set(after) == set(before)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    return {name: sampled(after[name].numpy()) for name in sorted(changed)}


def sampled(x: np.ndarray) -> list[float]:
    """Some values, from the first to the last."""
    return [float(v) for v in x.reshape(-1)[np.linspace(0, x.size - 1, VALUES).astype(int)]]


def main() -> None:
    document = {
        "made by": "tests/golden/make_lora.py: peft 0.21.2, transformers 5.23.0",
        "cases": {},
    }
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            document["cases"][name] = merged(case, Path(folder))
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
