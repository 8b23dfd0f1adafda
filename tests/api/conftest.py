"""Every test of the HTTP interface runs on PostgreSQL and once more on SQLite."""

import pytest

from tests.support.deployments import Backend


@pytest.fixture(params=list(Backend), ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return what the application stands on."""
    return Backend(request.param)
