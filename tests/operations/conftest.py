"""The stage: a private deployment on PostgreSQL and Redis, with Gunicorn as shipped."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.operations.stage import Stage
from tests.support.databases import PostgresDatabase
from tests.support.deployments import ENVIRONMENT


@pytest.fixture
def stage(
    make_database: Callable[[str], PostgresDatabase],
    redis_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    """Return a deployment that is not started yet, on a migrated database of its own."""
    database = make_database(f"stage_{abs(hash(request.node.name)) % 10**8}")
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    stage = Stage(
        tmp_path,
        {
            **ENVIRONMENT,
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "WEB_CONCURRENCY": "2",
            "DRAIN_SECONDS": "0",
        },
    )
    yield stage
    stage.service.__exit__()
    client.flushdb()
    client.close()
