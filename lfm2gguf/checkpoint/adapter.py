"""A LoRA adapter's folder, as peft saves it (``utils/save_and_load.py``, 0.21)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint import mlx
from lfm2gguf.checkpoint.folder import read_json
from lfm2gguf.checkpoint.hub import locate
from lfm2gguf.checkpoint.names import unwrapped
from lfm2gguf.checkpoint.patterns import LONGEST, name_matches, pattern_problem
from lfm2gguf.checkpoint.safetensors import TensorInfo, read_header
from lfm2gguf.errors import CheckpointError, TensorError, UnsupportedError

WEIGHTS = "adapter_model.safetensors"
FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
FACTOR = re.compile(rf"(?P<module>.+)\.(?P<kind>{'|'.join(FACTORS)})(?:\.default)?(?:\.weight)?")
# In the names of weights that are saved whole: trained copies, of which peft takes the part away
# itself, but not where it saves a grown vocabulary; and the weight that a copy was made of.
COPY, ORIGINAL = re.compile(r"\.modules_to_save(\.default)?(?=\.)"), ".original_module."
# And of a weight that factors are for, as it was in training.
BASE_LAYER = ".base_layer."

# A path, and not a Hub id: from a root, a drive or a home, or from where the training ran.
ELSEWHERE = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]|[^/]+(/[^/]+){2,}/?$|[^/]+/?$")

NOT_GATHERED = (
    "DeepSpeed ZeRO-3 and FSDP leave it so where the model is saved without gathering its "
    "parameters; save the adapter again"
)
RESAVE = "correct it, or save the adapter again"
# Settings that compute something other than scale * B @ A when they are set.
UNKNOWN = (
    "layer_replication", "use_qalora", "use_bdlora", "velora_config", "kasa_config",
    "monteclora_config", "arrow_config", "trainable_token_indices",
)  # fmt: skip
# Initializations that change the base model's weights too, which the adapter does not say.
CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True)
class Adapter:
    """An opened folder: ``tensors`` are by the names that they have in the model it was made of."""

    path: Path
    name: str
    config: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    weights: Path  # the file that they are in

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> Adapter:
        """Read the config and the tensors' names of a folder, or of a Hub id's repository.

        ``revision`` is a branch, tag or commit of that repository.

        Raises:
            CheckpointError: a file is missing or damaged, or holds a weight twice, differently.
            HubError: the repository cannot be fetched.
            UnsupportedError: not LoRA, or a variant of it that cannot be merged.

        """
        found = locate(source, revision)
        path = found.path
        config = read_json(path / "adapter_config.json", needed_for=f"{path} to be an adapter")
        weights = WEIGHTS
        if mlx.is_adapter(config):
            config = mlx.adapter_config(path / "adapter_config.json", config)
            weights = mlx.ADAPTER
        _check_assumptions(path, config)
        if not (path / weights).is_file():
            pickled = (path / "adapter_model.bin").is_file()
            raise CheckpointError(
                f"{path / weights}: missing"
                + ("; load the adapter in peft and save it again, which makes one" * pickled)
            )
        adapter = cls(path, found.name, config, _tensors(path / weights), path / weights)
        for module, factors in adapter.factors.items() if config.get("use_dora") else ():
            if "lora_magnitude_vector" not in factors:
                raise CheckpointError(
                    f"{path}: use_dora is set, and {module!r} has no lora_magnitude_vector; save "
                    "the adapter again, whole"
                )
        return adapter

    @cached_property
    def factors(self) -> dict[str, dict[str, TensorInfo]]:
        """Return the factors of each module, by their kind."""
        factors: dict[str, dict[str, TensorInfo]] = {}
        for name, info in self.tensors.items():
            if found := FACTOR.fullmatch(name):
                factors.setdefault(found["module"], {})[found["kind"]] = info
        return factors

    @cached_property
    def saved(self) -> dict[str, TensorInfo]:
        """Return the weights that were trained whole, by the names of those that they replace."""
        return {n: t for n, t in self.tensors.items() if not _belongs_to_factors(n)}

    @cached_property
    def base_layers(self) -> dict[str, TensorInfo]:
        """Return the weights that factors were trained with, where they are saved too."""
        return {
            name.replace(BASE_LAYER, "."): info
            for name, info in self.tensors.items()
            if BASE_LAYER in name and not FACTOR.fullmatch(name)
        }

    @property
    def files(self) -> set[Path]:
        """Those that decide what it adds: its config and its weights."""
        return {self.path / "adapter_config.json", self.weights}

    @property
    def base(self) -> str:
        """Return the base model that the adapter names: a folder or a Hub id.

        Raises:
            CheckpointError: it names none, or a folder that is not on this machine.

        """
        named = self.config.get("base_model_name_or_path")
        if not named or not isinstance(named, str):
            raise CheckpointError(
                f"{self.path}: names no base model; give it with base=... (--base)"
            )
        if Path(named).is_dir() or not ELSEWHERE.match(named):
            return named
        above = self.path.resolve().parent
        near = (above / re.split(r"[/\\]", named.rstrip("/\\"))[-1], above)
        found = next((folder for folder in near if (folder / "config.json").is_file()), None)
        raise CheckpointError(
            f"{self.path}: its base model is {named!r}, a folder that is not on this machine; give "
            "the base with base=... (--base)" + f", for example {found}" * bool(found)
        )

    @property
    def has_tokenizer(self) -> bool:
        """Say whether the folder has a tokenizer of its own and its special tokens."""
        files = ("tokenizer.json", "tokenizer_config.json")
        return all((self.path / name).is_file() for name in files)

    def check_merge(self) -> None:
        """Refuse what a merged model would do at other times than the adapter.

        Raises:
            UnsupportedError: an activated LoRA, https://arxiv.org/abs/2504.12397.

        """
        if tokens := self.config.get("alora_invocation_tokens"):
            raise UnsupportedError(
                f"{self.path}: is an activated LoRA (alora_invocation_tokens is {tokens}), which "
                "counts only from those tokens on, as a merged weight cannot; make an adapter "
                "file of it: lfm2gguf convert-lora ADAPTER --base BASE"
            )

    def pair(self, module: str) -> tuple[TensorInfo, TensorInfo]:
        """Return a module's A and B, an embedding's too.

        Raises:
            CheckpointError: a factor is empty.
            TensorError: one of them is missing, they are not matrices, or DoRA does not have a
                length for each row of B.

        """
        factors = self.factors[module]
        if empty := next((info for info in factors.values() if 0 in info.shape), None):
            raise CheckpointError(f"{self.weights}: {empty.name!r} is empty; {NOT_GATHERED}")
        for a, b in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            if a in factors and b in factors:
                if any(len(factors[kind].shape) != 2 for kind in (a, b)):
                    raise TensorError(
                        f"{self.path}: the factors of {module!r} are not matrices (a "
                        "convolution?); train without that module, or merge the adapter with peft"
                    )
                lengths, n = factors.get("lora_magnitude_vector"), factors[b].shape[0]
                if lengths and lengths.shape != (n,):
                    raise TensorError(
                        f"{self.path}: {lengths.name!r} needs {n} values and has "
                        f"the shape {lengths.shape}; save the adapter again"
                    )
                return factors[a], factors[b]
        raise TensorError(
            f"{self.path}: {module!r} has {' and '.join(sorted(factors))} instead of a pair of "
            "lora_A and lora_B; save the adapter again"
        )

    def scale(self, module: str, rank: int) -> float:
        """Return what B @ A is multiplied by: alpha over the rank, or over its root (rsLoRA).

        ``module`` is a :func:`trained_name`.
        """
        alpha = float(self.alpha(module))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def alpha(self, module: str) -> float:
        """Return a module's alpha: that of the first pattern that fits its name, or the general."""
        for pattern, alpha in (self.config.get("alpha_pattern") or {}).items():
            if name_matches(pattern, module):
                return float(alpha)
        return float(self.config["lora_alpha"])


def trained_name(factor: TensorInfo) -> str:
    """Return the name of a factor's module in the model that was trained, as patterns have it."""
    name = unwrapped(factor.name, has_head=False)
    found = FACTOR.fullmatch(name)
    return found["module"] if found else name


def _belongs_to_factors(name: str) -> bool:
    return BASE_LAYER in name or FACTOR.fullmatch(name) is not None


def _tensors(file: Path) -> dict[str, TensorInfo]:
    """Read the tensors in their order, each once, without wrappers in their names."""
    tensors: dict[str, TensorInfo] = {}
    saved = read_header(file)
    if file.name == mlx.ADAPTER:
        saved = mlx.adapter_tensors(file, saved)
    for raw, info in sorted(saved.items(), key=lambda item: item[1].offset):
        if ORIGINAL in raw:
            continue
        name = COPY.sub("", unwrapped(raw, has_head=False))
        if name in tensors and not tensors[name].equals(info):
            raise CheckpointError(
                f"{file}: {tensors[name].name!r} and {raw!r} are both {name!r}, and differ; save "
                "the adapter again"
            )
        tensors[name] = info
    return tensors


def _check_assumptions(path: Path, config: Mapping[str, Any]) -> None:
    file = path / "adapter_config.json"
    if config.get("peft_type") != "LORA":
        raise UnsupportedError(
            f"{file}: peft_type is {config.get('peft_type')!r}, not 'LORA'; merge it with peft and "
            "convert the result"
        )
    _check_numbers(file, config)
    _check_invocation(file, config)
    _check_names(file, config)
    if config.get("lora_bias"):
        raise UnsupportedError(
            f"{file}: lora_bias is set: B has biases, which neither LFM2's layers nor an adapter "
            "file can hold; train without it, or stay with peft"
        )
    if key := next((key for key in UNKNOWN if config.get(key)), ""):
        raise UnsupportedError(
            f"{file}: {key} is set, which is more than a low-rank delta; merge it with peft "
            "(model.merge_and_unload()) and convert the result"
        )
    kind = str(config.get("init_lora_weights")).lower()
    if kind.startswith(CHANGES_BASE):
        raise UnsupportedError(
            f"{file}: init_lora_weights is {kind!r}, which changed the base model too; save the "
            "adapter converted (peft: path_initial_model_for_weight_conversion), or merge with peft"
        )


def _check_numbers(file: Path, config: Mapping[str, Any]) -> None:
    """Check the scale, and the patterns for other scales and ranks."""
    if not (_is_number(alpha := config.get("lora_alpha")) and alpha):
        raise CheckpointError(
            f"{file}: lora_alpha is {alpha!r}, not a number other than 0; {RESAVE}"
        )
    for key in ("alpha_pattern", "rank_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
            raise CheckpointError(
                f"{file}: {key} is {patterns!r}, not patterns with numbers; {RESAVE}"
            )
        if bad := next(filter(pattern_problem, patterns), None):
            problem = pattern_problem(bad)
            raise CheckpointError(f"{file}: {key}: {bad[:LONGEST]!r} {problem}; {RESAVE}")


def _check_names(file: Path, config: Mapping[str, Any]) -> None:
    for key in ("modules_to_save", "alora_invocation_tokens"):
        if not isinstance(given := config.get(key) or [], list):
            raise CheckpointError(f"{file}: {key} is {given!r:.80}, not a list; {RESAVE}")
    saved = config.get("modules_to_save") or []
    if not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"{file}: modules_to_save is {saved!r:.80}, not names; {RESAVE}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e38  # in float32, too; NaN is not


def _check_invocation(file: Path, config: Mapping[str, Any]) -> None:
    """Check what an activated LoRA is activated by."""
    key, tokens = "alora_invocation_tokens", config.get("alora_invocation_tokens")
    if config.get("invocation_string") and not tokens:
        raise UnsupportedError(
            f"{file}: invocation_string is set; give the ids of its tokens as {key}, as peft does"
        )
    if tokens and not (isinstance(tokens, list) and all(type(t) is int and t >= 0 for t in tokens)):
        raise CheckpointError(f"{file}: {key} is {tokens!r}, not a list of token ids; {RESAVE}")
