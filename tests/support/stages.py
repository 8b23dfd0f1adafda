"""Which runs of a test belong to `make test`, and which to `make test-thorough`.

A test that runs on both databases repeats on SQLite what it proves on PostgreSQL. The repetition is
marked `thorough`, except for tests marked `core`.
"""

import pytest

from tests.support.deployments import Backend


def run_on_both_databases(metafunc: pytest.Metafunc) -> None:
    """Run a test on PostgreSQL and on SQLite, unless it names its databases itself."""
    named = any(
        "backend" in str(marker.args[0])
        for marker in metafunc.definition.iter_markers("parametrize")
    )
    if named or "backend" not in metafunc.fixturenames:
        return
    core = metafunc.definition.get_closest_marker("core") is not None
    sqlite = pytest.param(Backend.SQLITE, marks=() if core else pytest.mark.thorough)
    metafunc.parametrize("backend", [Backend.POSTGRESQL, sqlite], ids=str, indirect=True)
