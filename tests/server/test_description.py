"""The OpenAPI description against what the server does, by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from lfm2gguf import Runner  # noqa: E402
from tests.server.conftest import serving  # noqa: E402

OPERATIONS = [
    ("GET", "/health"), ("GET", "/metrics"), ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"), ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"), ("POST", "/v1/embeddings"), ("POST", "/v1/rerank"),
    ("POST", "/v1/responses"), ("POST", "/v1/responses/input_tokens"), ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/tokenize"), ("POST", "/detokenize"), ("POST", "/apply-template"),
    ("POST", "/v1/chat/completions/input_tokens"), ("GET", "/props"), ("GET", "/slots"),
    ("GET", "/lora-adapters"), ("POST", "/completion"),
]  # fmt: skip


KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def description(runner: Runner) -> Iterator[Any]:
    with serving(runner, api_key="secret") as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json", headers=KEY, timeout=100)


def test_all_are_described(description: Any) -> None:
    found = [result.ok() for result in description.get_all_operations()]
    assert sorted((o.method.upper(), o.path) for o in found) == sorted(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_operation(description: Any, method: str, path: str) -> None:
    """No 5xx, and each answer is one that the description names, of the shape it says."""

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=description[path][method].as_strategy())
    def check(case: Any) -> None:
        if isinstance(case.body, dict) and "completion" in path:
            case.body["max_tokens"] = 4
        # what a schema cannot say may be refused: other models, prompts too long, unknown tools
        case.call_and_validate(headers=KEY, timeout=60, excluded_checks=[positive_data_acceptance])

    check()
