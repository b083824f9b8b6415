"""The application: endpoints, limits, and errors of one shape."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.responses import Response

from lfm2gguf.errors import OptionError
from lfm2gguf.runner import Runner
from lfm2gguf.server import (
    chat,
    completions,
    docs,
    embeddings,
    native,
    native_completion,
    page,
    rerank,
)
from lfm2gguf.server.browsers import AccessLog, Heads, Unversioned, Warnings, cross_origin
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.errors import add_handlers
from lfm2gguf.server.limits import BoundedBody, Limits
from lfm2gguf.server.messages_api import endpoint as messages_api
from lfm2gguf.server.metrics import CONTENT_TYPE, CountRequests, Metrics
from lfm2gguf.server.responses import Health, ModelInfo, ModelList
from lfm2gguf.server.responses_api import endpoint as responses_api
from lfm2gguf.server.service import Service

open_to_all = Endpoints()
router = Endpoints()  # at the root alone
listed = Endpoints()


@open_to_all.get("/health", open=True)
@open_to_all.get("/v1/health", open=True, listed=False)
async def health() -> Health:
    """Say that the server answers."""
    return Health()


@listed.get("/v1/models")
async def models(service: Service) -> ModelList:
    """List the models: the file, and it with each adapter."""
    return ModelList(data=[_info(service, name) for name in service.names])


@listed.get("/v1/models/{model:path}")
async def model(model: str, service: Service) -> ModelInfo:
    """Describe the model."""
    service.check_model(model)
    return _info(service, model)


@router.get("/metrics", answer=Response)
async def metrics(service: Service) -> Response:
    """Report to Prometheus: requests, tokens, speeds and memory."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


# Their paths begin with /v1, and are served without it, too.
VERSIONED = (
    *listed, *chat.router, *native.counting, *completions.router, *responses_api.router,
    *messages_api.router, *embeddings.router, *rerank.router,
)  # fmt: skip


def _keys(api_key: str | Sequence[str] | None) -> tuple[str, ...]:
    keys = (api_key,) if isinstance(api_key, str) else tuple(api_key or ())
    if not all(keys):
        raise OptionError("api_key is empty: give a key, or none at all")
    return keys


def _info(service: Service, name: str) -> ModelInfo:
    runner = service.runner
    return ModelInfo(
        id=name,
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
    strict_model: bool = False,
    lenient: bool = False,
    cors_origins: Collection[str] = (),
    chat_page: bool = True,
) -> Starlette:
    """Return an ASGI application that serves a runner as OpenAI's API.

    Every path but ``/health`` and the like is there with ``/v1`` and without. The runner stays
    the caller's, to be closed after the server.

    Args:
        runner: the model; each of its adapters is a model by its own name.
        name: the model's; the file's without its suffix if None.
        api_key: one or several, of which a request sends one; asked for everywhere but at
            ``/health``, ``/docs`` and ``/``.
        limits: what a request may cost.
        strict_model: refuse requests for other models, which otherwise this one answers.
        lenient: pass over settings that have no effect here, with a warning, instead of refusing.
        cors_origins: origins whose pages may use the server, besides this machine's; ``*``: all.
        chat_page: whether ``/`` is a page to chat on.

    Raises:
        OptionError: a key is empty, or an adapter has the model's name.

    """
    limits = limits or Limits()
    name = name or runner.path.stem
    if name in runner.adapters:
        raise OptionError(f"an adapter is named {name!r}, as the model is: rename one of them")
    everywhere = [*open_to_all, *docs.router, *(page.router if chat_page else ())]
    guarded = [*router, *docs.guarded, *native.router, *native_completion.router, *VERSIONED]
    app = Starlette(routes=[endpoint.route for endpoint in (*everywhere, *guarded)])
    app.state.service = service = Service(
        runner, name, _keys(api_key), limits, Metrics(runner), strict_model
    )
    add_handlers(app)
    app.add_middleware(BoundedBody, limits=limits)
    app.add_middleware(Warnings, lenient=lenient)
    app.add_middleware(CountRequests, metrics=service.metrics)
    app.add_middleware(cross_origin, origins=cors_origins)
    app.add_middleware(Unversioned, paths=[endpoint.path for endpoint in VERSIONED])
    app.add_middleware(Heads)
    app.add_middleware(AccessLog)
    return app
