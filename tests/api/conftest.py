"""Every test of the HTTP interface runs on PostgreSQL and once more on SQLite."""

import pytest

from tests.support.stages import run_on_both_databases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of this folder on both databases."""
    run_on_both_databases(metafunc)
