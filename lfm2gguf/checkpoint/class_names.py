"""The model's class in config.json, where a wrapper left its own name there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What FSDP2 puts before a class (huggingface/transformers#40750), and TRL behind it.
BEFORE, BEHIND = ("FSDP", "DDP"), ("WithValueHead",)
# Wrappers that name only themselves: peft's, torch.compile's, transformers' and TRL's automatic
# classes. What they wrapped follows from model_type.
ANONYMOUS = re.compile(
    r"(PeftModel|PeftMixedModel|LoraModel|OptimizedModule|DistributedDataParallel|"
    r"FullyShardedDataParallel|DeepSpeedEngine|AutoModel|AutoLigerKernel|Unsloth|FastLanguageModel)"
    r"\w*"
)
BY_TYPE = {
    "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "lfm2_vl": "Lfm2VlForConditionalGeneration",
}


def with_own_class(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a config with the model's own class, and a note where it named a wrapper's."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return config, ()
    own = _own(str(names[0]), config)
    if own == names[0]:
        return config, ()
    note = f"config.json names {names[0]}, a wrapper's class: it is read as {own}"
    return config | {"architectures": [own]}, (note,)


def _own(name: str, config: Mapping[str, Any]) -> str:
    if ANONYMOUS.fullmatch(name):
        return BY_TYPE.get(str(config.get("model_type")), name)
    for before in BEFORE:
        name = name.removeprefix(before)
    for behind in BEHIND:
        name = name.removesuffix(behind)
    return name
