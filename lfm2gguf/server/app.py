"""The application: endpoints, limits, and errors of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from lfm2gguf.errors import OptionError
from lfm2gguf.runner import Runner
from lfm2gguf.server import chat, completions, embeddings, page
from lfm2gguf.server.errors import ErrorBody, add_handlers
from lfm2gguf.server.limits import BoundedBody, Limits
from lfm2gguf.server.metrics import CONTENT_TYPE, CountRequests, Metrics
from lfm2gguf.server.responses import Health, ModelInfo, ModelList
from lfm2gguf.server.service import Served, Service, authorized
from lfm2gguf.version import __version__

_REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What is wrong with the request"},
    "5XX": {"model": ErrorBody, "description": "What is wrong with the server"},
}

open_to_all = APIRouter()
router = APIRouter()


@open_to_all.get("/health")
async def health(service: Served) -> Health:
    """Say that the server answers."""
    return Health()


@router.get("/v1/models")
async def models(service: Served) -> ModelList:
    """List the models: there is one."""
    return ModelList(data=[_info(service)])


@router.get("/v1/models/{model:path}")
async def model(model: str, service: Served) -> ModelInfo:
    """Describe the model."""
    service.check_model(model)
    return _info(service)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: Served) -> Response:
    """Report to Prometheus: requests, tokens, speeds and memory."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request) -> JSONResponse:
    """Describe the endpoints."""
    return JSONResponse(request.app.openapi())


def _keys(api_key: str | Sequence[str] | None) -> tuple[str, ...]:
    keys = (api_key,) if isinstance(api_key, str) else tuple(api_key or ())
    if not all(keys):
        raise OptionError("api_key is empty: give a key, or none at all")
    return keys


def _info(service: Service) -> ModelInfo:
    runner = service.runner
    return ModelInfo(
        id=service.name,
        created=service.created,
        context_length=runner.context_size,
        parallel=runner.parallel,
        device=str(runner.device),
    )


def create_app(
    runner: Runner,
    *,
    name: str | None = None,
    api_key: str | Sequence[str] | None = None,
    limits: Limits | None = None,
    chat_page: bool = True,
) -> FastAPI:
    """Return an ASGI application that serves a runner as OpenAI's API.

    ``name`` is the model's, the file's without its suffix if None; ``api_key``, one or several of
    which a request sends one, is asked for everywhere but at ``/health`` and
    ``/``: the chat page, which ``chat_page=False`` leaves out. The runner stays the caller's, to
    be closed after the server.

    Raises:
        OptionError: a key is empty.

    """
    limits = limits or Limits()
    app = FastAPI(title="lfm2gguf", version=__version__, openapi_url=None)
    app.state.service = service = Service(
        runner, name or runner.path.stem, _keys(api_key), limits, Metrics(runner)
    )
    app.include_router(open_to_all, responses=_REFUSED)
    if chat_page:
        app.include_router(page.router)
    for guarded in (router, chat.router, completions.router, embeddings.router):
        app.include_router(guarded, dependencies=[Depends(authorized)], responses=_REFUSED)
    add_handlers(app)
    app.add_middleware(BoundedBody, limits=limits)
    app.add_middleware(CountRequests, metrics=service.metrics)
    return app
