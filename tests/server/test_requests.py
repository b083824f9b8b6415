"""The request model beside the table of options."""

from __future__ import annotations

from lfm2gguf.options import option_table
from lfm2gguf.server.requests import ChatRequest, CompletionRequest


def test_options_have_the_kinds_ranges_and_descriptions_of_the_runner_s() -> None:
    """Of an answer's options only those with a form of their own on the wire may differ.

    A chat has one token at least, as OpenAI's; a text may be computed alone.
    """
    own = {"seed", "logit_bias", "stop", "logprobs", "json_schema", "stop_tokens"}
    shared = (ChatRequest.model_fields.keys() & option_table().keys()) - own
    assert shared >= {"max_tokens", "temperature", "top_k", "min_p", "ignore_eos"}
    for name in shared:
        option, field = option_table()[name], ChatRequest.model_fields[name]
        field = CompletionRequest.model_fields[name] if name == "max_tokens" else field
        assert field.annotation == option.kind | None, name
        assert field.description == option.doc
        bounds = {type(note).__name__: note for note in field.metadata}
        if option.range:
            assert (bounds["Ge"].ge, bounds["Le"].le) == option.range
