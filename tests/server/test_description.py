"""The OpenAPI description against what the server does, by schemathesis."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from hypothesis import HealthCheck, settings  # noqa: E402


@pytest.fixture
def description(runner, url):  # type: ignore[no-untyped-def]
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


schema = schemathesis.pytest.from_fixture("description")


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation(case) -> None:  # type: ignore[no-untyped-def]
    """No 5xx, and each answer is one that the description names, of the shape it says."""
    if isinstance(case.body, dict):
        case.body.setdefault("max_tokens", 4)
    case.call_and_validate(timeout=60)
