"""Fixtures of the registry."""

import pytest

from tests.tracking.registry_cases import make_template, registry_in


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory):
    """An empty registry's file."""
    return make_template(tmp_path_factory.getbasetemp().parent)


@pytest.fixture
def client(tmp_path, registry_template):
    """A registry of the test's own."""
    with registry_in(tmp_path, registry_template) as client:
        yield client
