"""Folders without weights of their own: what stands there instead, and what to do about it.

The layouts are those of transformers' Trainer (``trainer.py``), accelerate
(``utils/fsdp_utils.py``), DeepSpeed (``utils/zero_to_fp32.py``, ``checkpoint/ds_to_universal.py``),
``torch.distributed.checkpoint`` and torchtune 0.1 to 0.6 (``training/checkpointing``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from lfm2gguf.errors import CheckpointError, UnsupportedError

AGAIN = "download or save it again"
STEP = re.compile(r"checkpoint-(\d+)")
BESIDE = "put the model.safetensors that it writes beside config.json and convert again"
UNIVERSAL = (
    "has DeepSpeed's universal checkpoint ({1}) only, which is for training on; merge the "
    "checkpoint that ds_to_universal.py made it of: python -m deepspeed.utils.zero_to_fp32 "
    f"CHECKPOINT OUTPUT --safe_serialization, and {BESIDE}"
)
# What a folder holds, as patterns of paths, and why that is not enough; {0} is the folder, {1}
# what was found. The first that fits counts.
SHARDS = {
    "pytorch_model_fsdp_*": "has FSDP's shards ({1}) only; merge them: "
    f"accelerate merge-weights {{0}}/{{1}} OUTPUT, and {BESIDE}",
    "global_step*[0-9]": "has DeepSpeed's shards ({1}) only; merge them: "
    f"python {{0}}/zero_to_fp32.py {{0}} OUTPUT --safe_serialization, and {BESIDE}",
    **dict.fromkeys(("*_universal/zero", "latest_universal", "zero/*/fp32.pt"), UNIVERSAL),
    "*.distcp": "has shards of torch.distributed.checkpoint ({1}) only; merge them: "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {0} model.pt, load that into "
    "the model, and save it with save_pretrained(folder)",
    "*/*.distcp": "has shards of torch.distributed.checkpoint ({1}) only; merge them: "
    "accelerate merge-weights SHARDS OUTPUT, with the folder that holds them, and " + BESIDE,
}
# torchtune's pickles, which transformers does not load by their names.
TUNED = {
    "hf_model_*.pt": "has torchtune's pickles ({1}) only; load each into the model: "
    "model.load_state_dict(torch.load(FILE, weights_only=True), strict=False), and save it with "
    "save_pretrained(folder); with safe_serialization: True in its recipe, tune run does so itself",
    **dict.fromkeys(
        ("meta_model_*.pt", "torchtune_model_*.pt"),
        "has torchtune's {1} only, whose names are not those of transformers; run its recipe "
        "(tune run) with FullModelHFCheckpointer and safe_serialization: True",
    ),
}
WEIGHTS = {
    "consolidated*.safetensors": "has {1} only, whose names are not those of transformers; save "
    "the model with save_pretrained(folder)",
    "*.npz": "has an MLX archive ({1}) only; make a folder of it with a newer mlx-lm: "
    "mlx_lm.convert --hf-path {0} --mlx-path OUTPUT --dequantize",
    "adapters.safetensors": "is an MLX adapter, not a whole checkpoint; convert its base model "
    "with --lora ADAPTER (lora=...), or make an adapter file of it with convert-lora",
    "adapter_config.json": "is a LoRA adapter, not a whole checkpoint; convert its base model with "
    "--lora ADAPTER (lora=...), or make an adapter file of it with convert-lora",
}
# Looked for last, as they may stand beside any of the others.
OTHERS = {
    "*/adapter_config.json": "has no weights itself, and a LoRA adapter below ({1}); convert its "
    "base model with --lora and that file's folder",
    "adapter_model*.safetensors": "has an adapter's weights ({1}) without its adapter_config.json; "
    "save the adapter again, whole, and give it as --lora ADAPTER",
    "adapter_*.pt": "has torchtune's adapter ({1}) only, in names of its own; run its recipe "
    "(tune run) with FullModelHFCheckpointer and safe_serialization: True, and give the folder of "
    "the adapter_config.json that it writes as --lora ADAPTER",
    "ft-model-*.safetensors": "has torchtune's shards ({1}) without their "
    "model.safetensors.index.json; copy it, or take ft- off their names",
    "*.safetensors": "has {1}, a name that is not looked for; if it is the whole model, call it "
    "model.safetensors",
    **dict.fromkeys(
        ("*.safetensors.incomplete", "*.safetensors.crdownload", "*.safetensors.part*"),
        "has {1}, which is no whole file as yet; finish the download",
    ),
    "*.gguf": "has GGUF files ({1}) only, which quantize takes: lfm2gguf quantize {0}/{1}; for a "
    "checkpoint, name the model that they were made of",
    "*onnx*": "has an ONNX model ({1}) only; convert the checkpoint that it was made of",
}
WHOLE = ("model*.safetensors", "ft-model-*.safetensors")  # the latter is torchtune's
BELOW = ("*/config.json", "snapshots/*/config.json")
PICKLES = ("*.bin", "*.pt", "*.pth")
# A trainer's own state, and adapters: they are not the model.
STATE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|trainer|recipe_state|"
    r"adapter_model|adapter_\d+)\b.*"
)


def refuse_without_weights(folder: Path, needed: str) -> NoReturn:
    """Say what a folder holds in place of weights; ``needed`` names the files that it lacks.

    Raises:
        CheckpointError: nothing that could become weights, or they are one folder below.
        UnsupportedError: weights in a form that has to be brought into another first.

    """
    refuse_stand_in(folder)
    raise CheckpointError(f"{folder}: has no weights ({needed}); {AGAIN}")


def refuse_stand_in(folder: Path) -> None:
    """Refuse a folder that holds a model in another form, or one folder below.

    Raises:
        CheckpointError: the weights are one folder below.
        UnsupportedError: weights in a form that has to be brought into another first.

    """
    _refuse_found(folder, SHARDS)
    if newest := max(_steps(folder), default=None):
        raise CheckpointError(
            f"{folder}: has no weights itself, as a trainer's output folder; the newest are in "
            f"{newest[1].name}: give {newest[1]}"
        )
    _refuse_found(folder, TUNED)
    if found := [path for pattern in PICKLES for path in folder.glob(pattern) if _is_model(path)]:
        raise UnsupportedError(
            f"{folder}: has PyTorch pickles ({found[0].name}) only, which can run code when "
            "loaded; load the model in transformers and save it with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    _refuse_found(folder, WEIGHTS)
    if below := _below(folder):
        raise CheckpointError(
            f"{folder}: has no weights itself; there are some in {below.relative_to(folder)}: "
            f"give {below}"
        )
    _refuse_found(folder, OTHERS)


def _below(folder: Path) -> Path | None:
    """Return the newest whole checkpoint one folder below, or in a cache's snapshots."""
    configs = (path for pattern in BELOW for path in folder.glob(pattern))
    found = [p for p in configs if any(any(p.parent.glob(pattern)) for pattern in WHOLE)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _refuse_found(folder: Path, table: dict[str, str]) -> None:
    for pattern, why in table.items():
        if found := min(folder.glob(pattern), default=None):
            there = found.relative_to(folder).as_posix()
            raise UnsupportedError(f"{folder}: {why.format(folder, there)}")


def _steps(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield a trainer's checkpoints that hold weights, each with its step."""
    for path in folder.glob("checkpoint-*"):
        weights = (p for pattern in ("*.safetensors", *SHARDS) for p in path.glob(pattern))
        if (step := STEP.fullmatch(path.name)) and any(weights):
            yield int(step[1]), path


def _is_model(path: Path) -> bool:
    return STATE.fullmatch(path.name) is None
