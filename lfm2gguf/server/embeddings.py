"""``POST /v1/embeddings``."""

from __future__ import annotations

import base64
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from lfm2gguf.llamacpp import Floats
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.errors import HUNG_UP, Refusal
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.requests import EmbeddingRequest, prompts_of
from lfm2gguf.server.responses import Embedding, Embeddings, EmbeddingUsage
from lfm2gguf.server.service import Service
from lfm2gguf.server.settings import leniency

router = Endpoints()


@router.post("/v1/embeddings", answer=Embeddings)
async def embeddings(
    body: EmbeddingRequest, request: Request, service: Service, generation: Generation
) -> Any:
    """Turn texts into vectors of length 1."""
    name = service.name_of(body.model)
    generation.admit(1)
    texts = prompts_of(body.input)
    data, tokens = [], 0
    for index, text in enumerate(texts):  # one by one: others may be served between
        if await request.is_disconnected():
            raise Refusal(HUNG_UP, "the client hung up")
        if isinstance(text, list):
            _check_ids(text, len(service.runner.tokens))
        [vector] = await run_in_threadpool(service.runner.embed, [text], kind=body.input_type)
        data.append(Embedding(index=index, embedding=_written(vector, body)))
        tokens += len(text if not isinstance(text, str) else service.runner.tokenize(text))
    usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    return Embeddings(data=data, model=name, usage=usage)


def _check_ids(tokens: list[int], size: int) -> None:
    """Refuse token ids of another vocabulary, and tell which client sends them and why.

    Those of another that lie within this one's are not to be told from its own.
    """
    leniency().warn("input is read as token ids of this model's own tokenizer")
    if wrong := [token for token in tokens if token >= size]:
        raise Refusal(
            400,
            f"input: {wrong[0]} is not a token id of this model (0 to {size - 1}). If the client "
            "has tokenized the text for one of OpenAI's models, let it send the text: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False) in LangChain",
            param="input",
        )


def _written(vector: Floats, body: EmbeddingRequest) -> list[float] | str:
    if vector.ndim != 1:
        raise Refusal(
            400,
            "this model has a vector for each token, which OpenAI's format has no place for: use "
            "Runner.embed in Python",
        )
    if body.dimensions not in (None, len(vector)):
        raise Refusal(
            400, f"this model's vectors have {len(vector)} dimensions", param="dimensions"
        )
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(x) for x in vector]
