"""A registry with no network in it, and a self-test that takes no time."""

import pytest

from kits_ml.evaluation import selftest
from tests.tracking.registry_cases import make_template, registry_in


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory):
    return make_template(tmp_path_factory.getbasetemp().parent)


@pytest.fixture
def client(tmp_path, registry_template, monkeypatch):
    row = selftest.Row(metric="dice", convention="", scenario="perfect", expected="1", found="1", ok=True)
    monkeypatch.setattr(selftest, "readings", lambda subjects: [row])  # the real ones have their own tests
    with registry_in(tmp_path, registry_template) as client:
        yield client
