"""Make moe_logits.json: logits of the mixtures in tests/lfm2/moe_cases.py, by transformers.

    python -m tests.golden.make_moe_logits

Needs torch and transformers 5. Float32; the experts computed one after another.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.making.moe_cases import CASES, IDS, SHOWN, make_moe

TARGET = Path(__file__).with_name("moe_logits.json")


def main() -> None:
    document = {"made by": "tests/golden/make_moe_logits.py: transformers 5.23.0", "cases": {}}
    for name, config in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            source = make_moe(config, Path(folder) / "M")
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, experts_implementation="eager"
            )
            with torch.no_grad():
                logits = model(torch.tensor([IDS])).logits[0].numpy()
        document["cases"][name] = [[float(x) for x in row] for row in logits[:, ::SHOWN]]
    TARGET.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
