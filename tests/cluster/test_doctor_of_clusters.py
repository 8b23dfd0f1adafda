"""flask doctor examines the replication of PostgreSQL."""

import pytest

from tests.cluster.conftest import Deploy
from tests.support.clusters.postgresql import PostgresCluster

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("names_all", [True, False])
def test_replication_that_could_lose_changes_is_reported(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy, names_all: bool
) -> None:
    """Behind the one name of an operator's service it was not examined."""
    nodes = None if names_all else [postgresql.primary]
    service = deploy.process(postgresql.url(database_name, nodes))

    synchronous = service.flask("doctor").stdout
    postgresql.replicate(synchronously=False)
    asynchronous = service.flask("doctor").stdout

    assert "connected to the primary, on timeline" in synchronous
    assert "with 2 standbys" in synchronous
    assert "replication is asynchronous" not in synchronous
    assert "replication is asynchronous" in asynchronous
