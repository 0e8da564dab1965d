"""What the service's schema says is what it does: requests made from the schema, answers held to it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

schema = schemathesis.pytest.from_fixture("openapi")

#: Any bytes fit the schema, for none can say what a scan is: most of them are refused, as they should be.
_NOT_HELD = ("positive_data_acceptance",)


@pytest.fixture
def openapi(served):
    config = SchemathesisConfig()
    return schemathesis.openapi.from_url(f"{served.url}openapi.json", config=config)


@schema.parametrize()
@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_service_keeps_its_schema(case):
    excluded = [check for name in _NOT_HELD for check in CHECKS.get_by_names([name])]
    case.call_and_validate(excluded_checks=excluded, timeout=20)
