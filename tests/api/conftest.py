"""Every test of the HTTP interface runs on PostgreSQL and once more on SQLite."""

import pytest

from tests.support.deployments import Backend


@pytest.fixture(params=list(Backend), ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return the database of the application."""
    return Backend(request.param)
