"""Endpoints: functions that answer requests, told what their parameters' names ask for.

Starlette routes to them. FastAPI, which rests on it, would do so too, but takes longer to import
than all the rest of the server: here it only describes them (:mod:`lfm2gguf.server.docs`).
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lfm2gguf.json_text import parse_json
from lfm2gguf.server.errors import InvalidError, Refusal
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.service import Service, authorize

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One method of a path, as an ASGI application.

    ``function`` has parameters of these names, or some: ``body`` (what the client sends, checked
    by its annotation), ``service``, ``generation`` (closed behind the answer), ``request``, and
    those of the path and the query. It returns a response, or what ``answer``, its annotation
    unless given, makes JSON of: ``brief`` without what is not set.
    """

    method: str
    path: str
    function: Callable[..., Any]
    answer: Any = None
    brief: bool = False
    streams: bool = False  # whether the answer may be a stream of events instead
    open: bool = False  # to those without a key
    listed: bool = True  # in the OpenAPI description

    @property
    def route(self) -> Route:
        """What Starlette finds it by."""
        return Route(self.path, self, methods=[self.method], name=self.function.__name__)

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations of the function's parameters, and of what it returns."""
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def _names(self) -> list[str]:
        return list(inspect.signature(self.function).parameters)

    @cached_property
    def _body(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.hints["body"])

    @cached_property
    def _answer(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.answer or self.hints["return"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        service: Service = request.app.state.service
        if not self.open:
            authorize(service, request)
        given: dict[str, Any] = {**request.query_params, **request.path_params}
        given |= {"request": request, "service": service}
        if "body" in self._names:
            given["body"] = await self._read(request)
        with contextlib.closing(Generation(service, request)) as generation:
            given["generation"] = generation
            found = {name: given[name] for name in self._names if name in given}
            answer = await self.function(**found)
            await self._response(answer)(scope, receive, send)

    async def _read(self, request: Request) -> Any:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Refusal(
                415, "send the body as JSON, with the header Content-Type: application/json"
            )
        if not (data := await request.body()):
            raise InvalidError([{"type": "missing", "loc": (), "msg": "Field required"}])
        try:
            given = parse_json(data)
        except json.JSONDecodeError as error:
            raise Refusal(400, f"the body is not JSON: {error.msg}", code="invalid_json") from error
        except ValueError as error:  # of bytes, of numbers of 5000 digits, or of what nests
            what = "the body is not JSON in UTF-8, or nests too deep"
            raise Refusal(400, what, code="invalid_json") from error
        try:
            return self._body.validate_python(given)
        except ValidationError as error:
            raise InvalidError(error.errors()) from error

    def _response(self, answer: Any) -> Response:
        if isinstance(answer, Response):
            return answer
        data = self._answer.dump_json(answer, by_alias=True, exclude_unset=self.brief)
        return Response(data, media_type="application/json")


class Endpoints(list[Endpoint]):
    """Endpoints that a module has, told by decorators."""

    def get(self, path: str, **more: Any) -> Callable[[Function], Function]:
        """Add a function that answers GET, and return it."""
        return self._adding("GET", path, more)

    def post(self, path: str, **more: Any) -> Callable[[Function], Function]:
        """Add a function that answers POST, and return it."""
        return self._adding("POST", path, more)

    def _adding(
        self, method: str, path: str, more: dict[str, Any]
    ) -> Callable[[Function], Function]:
        def add(function: Function) -> Function:
            self.append(Endpoint(method, path, function, **more))
            return function

        return add
