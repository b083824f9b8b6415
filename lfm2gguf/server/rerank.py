"""``POST /v1/rerank``: documents by how well they fit a query.

Source of the forms: Jina's and Cohere's API references, "Rerank"; for ``texts`` that of Text
Embeddings Inference. llama.cpp's server has both (``tools/server/server-common.cpp`` at
0c1e57098, ``format_response_rerank``).
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from lfm2gguf.llamacpp import Floats
from lfm2gguf.runner import maxsim
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.errors import HUNG_UP, Refusal
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.requests import Request as Asked
from lfm2gguf.server.responses import EmbeddingUsage
from lfm2gguf.server.service import Service
from lfm2gguf.server.wire import Wire

router = Endpoints()


class Document(Wire):
    """A document; what else it has is passed over."""

    text: str


Documents = Annotated[list[str | Document], Field(min_length=1, max_length=2048)]


class RerankRequest(Asked):
    """``POST /v1/rerank``."""

    query: str
    documents: Documents | None = None
    texts: Documents | None = Field(None, description="`documents`; the answer is a plain list.")
    top_n: int | None = Field(None, ge=1, description="How many to return; all of them if more.")
    return_documents: bool | None = None
    return_text: bool | None = Field(None, description="`return_documents`, for `texts`.")
    max_tokens_per_doc: int | None = Field(None, description="Has no effect: nothing is cut.")
    raw_scores: bool | None = Field(None, description="Has no effect: scores are raw.")
    truncate: bool | None = Field(None, description="Has no effect: nothing is cut.")


class Ranked(Wire):
    """A document's place in the request, and its score: the larger, the better it fits."""

    index: int
    relevance_score: float
    document: Document | None = None


class Ranking(Wire):
    """The documents, the best first."""

    id: str
    object: str = "list"
    model: str
    results: list[Ranked]
    usage: EmbeddingUsage


class Scored(Wire):
    """The same in the form of Text Embeddings Inference."""

    index: int
    score: float
    text: str | None = None


@router.post("/v1/rerank", answer=Ranking | list[Scored], brief=True)
async def rerank(
    body: RerankRequest, request: Request, service: Service, generation: Generation
) -> Any:
    """Order documents by how well they fit a query: cosines, or ColBERT's sums of best matches."""
    name = service.name_of(body.model)
    given = body.documents or body.texts
    if given is None or (body.documents and body.texts):
        raise Refusal(400, "give documents, or texts", param="documents")
    generation.admit(1)
    texts = [document if isinstance(document, str) else document.text for document in given]
    embed, count = service.runner.embed, service.runner.tokenize
    [query] = await run_in_threadpool(embed, [body.query], kind="query")
    scores, tokens = [], len(count(body.query))
    for text in texts:  # one by one: others may be served between
        if await request.is_disconnected():
            raise Refusal(HUNG_UP, "the client hung up")
        [vectors] = await run_in_threadpool(embed, [text], kind="document")
        scores.append(_score(query, vectors))
        tokens += len(count(text))
    best = sorted(range(len(texts)), key=lambda i: -scores[i])[: body.top_n]
    if body.texts:
        shown = [{"text": texts[i]} if body.return_text else {} for i in best]
        return [
            Scored(index=i, score=scores[i], **more) for i, more in zip(best, shown, strict=True)
        ]
    return Ranking(
        id=f"rerank-{secrets.token_hex(12)}",
        object="list",
        model=name,
        results=[_ranked(i, scores[i], texts[i] if body.return_documents else None) for i in best],
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _score(query: Floats, document: Floats) -> float:
    """Return how well vectors of length 1 fit: one for each text, or one for each token."""
    return float(query @ document) if query.ndim == 1 else maxsim(query, document)


def _ranked(index: int, score: float, text: str | None) -> Ranked:
    shown = {} if text is None else {"document": Document(text=text)}
    return Ranked(index=index, relevance_score=score, **shown)
