"""Settings of other servers, and of OpenAI's service, that this one has no field for.

What cannot change an answer is accepted and has no effect, and so is a value that asks for
nothing. Anything else is refused by its name, or passed over where the server is lenient: then
the log and a header of the response say so. Sources: OpenAI's API reference; llama.cpp at
0c1e57098, ``tools/server/server-schema.cpp``; vLLM 0.11, ``entrypoints/openai/protocol.py``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError, ValidatorFunctionWrapHandler
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from lfm2gguf.server.hosted import OPENAI, Tools, pass_over_hosted

logger = logging.getLogger(__name__)

# A second name of a field: llama.cpp's and vLLM's.
ALIASES = {
    "repeat_last_n": "repeat_window", "repetition_penalty": "repeat_penalty",
    "n_predict": "max_tokens", "n_cmpl": "n", "stop_token_ids": "stop_tokens",
    "guided_json": "json_schema", "guided_grammar": "grammar",
    "guided_choice": "choice", "n_probs": "logprobs",
}  # fmt: skip

# Around the model: whatever they say, the answer is the same.
NO_EFFECT = frozenset({
    # OpenAI's
    "user", "store", "metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "safety_identifier", "prediction", "verbosity", "cache_control",
    "client_metadata",  # Codex
    # llama.cpp's
    "cache_prompt", "id_slot", "n_keep", "n_discard", "n_cache_reuse", "backend_sampling",
    "sse_ping_interval", "verbose", "preserved_tokens",
    # details of samplers that are off
    "mirostat_tau", "mirostat_eta", "adaptive_decay", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers",
    # vLLM's and its kin's
    "request_id", "priority", "cache_salt", "guided_decoding_backend", "kv_transfer_params",
})  # fmt: skip

# What a setting asks for nothing with; with anything else the answer would be another.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI's
    "modalities": (["text"],), "audio": (), "web_search_options": (), "echo": (False,),
    "best_of": (1,), "suffix": ("",), "background": (False,), "moderation": (),
    # Anthropic's
    "mcp_servers": ([],),
    # llama.cpp's
    "mirostat": (0,), "dry_multiplier": (0,), "adaptive_target": (-1,), "min_keep": (0,),
    "n_indent": (0,),
    "t_max_predict_ms": (0, -1), "samplers": (), "response_fields": ([],),
    "return_tokens": (False,), "return_progress": (False,), "post_sampling_probs": (False,),
    "grammar_lazy": (False,), "grammar_triggers": ([],), "grammar_type": ("", "user"),
    "parse_tool_calls": (True,), "reasoning_format": ("auto", "deepseek"),
    "reasoning_budget_tokens": (-1,), "thinking_budget_tokens": (-1,),
    "reasoning_control": (False,),
    # vLLM's
    "use_beam_search": (False,), "length_penalty": (1,), "early_stopping": (False,),
    "include_stop_str_in_output": (False,), "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False), "truncate_prompt_tokens": (-1,),
    "prompt_logprobs": (0,), "allowed_token_ids": ([],), "bad_words": ([],),
    "add_special_tokens": (True, False), "documents": ([],), "chat_template": ("",),
    "mm_processor_kwargs": ({},), "guided_regex": ("",), "guided_whitespace_pattern": ("",),
    "logits_processors": ([],), "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,), "include_reasoning": (True,), "vllm_xargs": ({},),
    "normalize": (True,), "softmax": (True,), "activation": (True,),
}  # fmt: skip


MOST_WARNINGS = 20  # of a request: more would flood the log


@dataclass
class Leniency:
    """Whether a request may hold settings without effect; what its answer must be told with."""

    lenient: bool = False
    warnings: list[str] = field(default_factory=list)

    def note(self, name: str) -> None:
        """Note a setting that was passed over."""
        shown = name if re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) else "an odd name"
        self.warn(f"{shown} is passed over")

    def warn(self, text: str) -> None:
        """Note what a header of the response and the log are to say."""
        if len(self.warnings) < MOST_WARNINGS and text not in self.warnings:
            self.warnings.append(text)
            logger.warning("a request: %s", text)


LENIENCY: ContextVar[Leniency] = ContextVar("leniency")  # of the request at hand


def leniency() -> Leniency:
    """Return that of the request at hand; outside of one nothing is let through."""
    return LENIENCY.get(None) or Leniency()


UNSUPPORTED = "unsupported"
_LET_THROUGH = ("extra_forbidden", UNSUPPORTED)


def settled(
    title: str,
    fields: Mapping[str, FieldInfo],
    data: Any,
    validate: ValidatorFunctionWrapHandler,
    own_tools: Tools = OPENAI,
) -> Any:
    """Validate what a client sends, its other names and settings without effect resolved.

    Nulls say nothing: typed clients send one for every field that they know. ``own_tools`` are
    the types of tools that a client runs itself.

    Raises:
        ValidationError: a setting is refused.
    """
    if not isinstance(data, dict):
        return validate(data)
    given = {name: value for name, value in data.items() if value is not None}
    _expand(given, fields)
    for other, name in ALIASES.items():
        if other in given and other not in fields and name in fields:
            value = given.pop(other)
            known = given.setdefault(name, value)
            if known is not value and known != value:
                raise _refused(title, other, value, f"it is {name}, which is given too")
    _respell(given, fields)
    if leniency().lenient and "tools" in fields:
        for name in pass_over_hosted(given, own_tools):
            leniency().note(name)
    for name in [name for name in given if name not in fields]:
        value = given[name]
        if name in NO_EFFECT or any(_same(value, neutral) for neutral in NEUTRAL.get(name, ())):
            del given[name]
        elif leniency().lenient:
            del given[name]
            leniency().note(name)
        elif name in NEUTRAL:
            raise _refused(title, name, value, _reason(name))
        else:  # the first alone: pydantic would list a hundred thousand
            raise _error(title, "extra_forbidden", name, value)
    return _validated(given, validate)


def _validated(given: dict[str, Any], validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate, and where it may be pass over what is refused for having no effect."""
    try:
        return validate(given)
    except ValidationError as error:
        refused = [e["loc"] for e in error.errors() if e["type"] in _LET_THROUGH]
        if not refused or not leniency().lenient:
            raise
        if not all(_taken_out(given, where) for where in refused):
            raise
    return _validated(given, validate)


def _taken_out(given: dict[str, Any], where: tuple[int | str, ...]) -> bool:
    """Take a setting out of an object in what was given; the client's own stays as it is."""
    if len(where) != 2 or not isinstance(part := given.get(str(where[0])), dict):
        return False
    given[str(where[0])] = {key: value for key, value in part.items() if key != where[1]}
    leniency().note(".".join(map(str, where)))
    return where[1] in part


def _respell(given: dict[str, Any], fields: Mapping[str, FieldInfo]) -> None:
    """Bring values into the form that the fields have: others write them otherwise."""
    for name, value in given.items():
        whole = isinstance(value, float) and value.is_integer()
        if whole and name in fields and int in get_args(fields[name].annotation):
            given[name] = int(value)
        if given[name] == -1 and name in _UNSET and not isinstance(value, bool):
            given[name] = _UNSET[name]
    if isinstance(stop := given.get("stop"), str | list):
        texts = [stop] if isinstance(stop, str) else stop
        given["stop"] = [text for text in texts if text != ""]


# What -1 means.
_UNSET = {"max_tokens": None, "max_completion_tokens": None, "seed": None, "top_k": 0}


def _expand(given: dict[str, Any], fields: Mapping[str, FieldInfo]) -> None:
    """Spread what is two fields here: ``n_probs`` of a chat, and vLLM's ``structured_outputs``."""
    if "top_logprobs" in fields and isinstance(probs := given.get("n_probs"), int):
        del given["n_probs"]
        given |= {"logprobs": True, "top_logprobs": probs} if probs else {}
    if isinstance(outputs := given.get("structured_outputs"), dict):
        del given["structured_outputs"]
        for name, value in outputs.items():
            if name == "json_object" and value is True:
                name, value = "json", {"type": "object"}
            if value not in (None, False):
                given.setdefault(f"guided_{name}", value)


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


_WHY = {
    "suffix": "its vocabulary has <|fim_pre|>, <|fim_suf|> and <|fim_mid|>, which llama.cpp does "
    "not recognise; no form of a prompt with them is documented that we know of",
}


def _reason(name: str) -> str:
    neutral = " or ".join(map(repr, NEUTRAL[name]))
    leave = f"leave it out, or give {neutral}" if neutral else "leave it out"
    why = f" ({_WHY[name]})" if name in _WHY else ""
    return f"this server does not support it{why}: {leave} (--lenient passes it over)"


def contradiction(title: str, name: str, value: Any, reason: str) -> ValidationError:
    """Return the error of a field that others contradict."""
    return _error(title, PydanticCustomError("contradiction", "{reason}", {"reason": reason}),
                  name, value)  # fmt: skip


def _refused(title: str, name: str, value: Any, reason: str) -> ValidationError:
    kind = PydanticCustomError(UNSUPPORTED, "{reason}", {"reason": reason})
    return _error(title, kind, name, value)


def _error(title: str, kind: str | PydanticCustomError, name: str, value: Any) -> ValidationError:
    details = InitErrorDetails(type=kind, loc=(name,), input=value)
    return ValidationError.from_exception_data(title, [details])
