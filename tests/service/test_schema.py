"""Requests that schemathesis makes from /openapi.json, right ones and wrong ones: nothing undeclared comes back."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks

from tests.support.live_service import LiveService

DOWNLOADS = "PUT /v1/models/{name}"
"""The operation that is left out: it would download models."""
SLOW = "POST /v1/plan"
"""The operation that starts a process for each request."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
]


@pytest.mark.parametrize("examples", [10, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_every_response_is_declared(service: LiveService, mode: GenerationMode, examples: int) -> None:
    service.wait_until_ready()
    config = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})  # wrong tokens wait
    schema = schemathesis.openapi.from_dict(service.get("/openapi.json").json(), config=config)
    called = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.label == DOWNLOADS:
            continue

        @settings(
            max_examples=examples // 5 if operation.label == SLOW else examples,
            deadline=None,
            derandomize=examples == 10,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case: Case) -> None:
            case.call_and_validate(
                base_url=service.url,
                session=service.session,
                headers=dict(service.session.headers),
                checks=CHECKS,
                timeout=30,
            )
            called.add(case.operation.label)

        try:
            call()
        except Unsatisfiable:
            continue
    assert len(called) >= 10, called
