"""Replication of PostgreSQL: whether a failover can lose what the service has acknowledged.

Examined where failovers are intended: DATABASE_URL names several hosts, or the server has standbys,
as behind the one name of an operator's service.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.database.hosts import names_several_hosts

# With a single one, a standby that hangs stops all changes.
MIN_STANDBYS = 2

# The state of a standby is visible to members of pg_monitor only, its row to every role.
_REPLICATION = text(
    "SELECT current_setting('synchronous_standby_names') AS synchronous,"
    " current_setting('fsync') AS fsync,"
    " current_setting('full_page_writes') AS full_page_writes,"
    " (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline,"
    " (SELECT count(*) FROM pg_stat_replication"
    " WHERE coalesce(state, 'streaming') = 'streaming') AS standbys"
)


def findings(connection: Connection, database_url: str) -> Iterator[Finding]:
    """Yield the role of the server and what makes a failover lose changes."""
    server = connection.execute(_REPLICATION).one()
    if not (server.standbys or server.synchronous or names_several_hosts(database_url)):
        return
    yield Finding(
        "database",
        Level.OK,
        f"connected to the primary, on timeline {server.timeline}, with {server.standbys} standbys",
    )
    yield from warnings(
        "database",
        (
            not server.synchronous,
            "replication is asynchronous: a failover can lose acknowledged changes",
            "Set synchronous_standby_names, such as 'ANY 1 (*)'.",
        ),
        (
            server.standbys < MIN_STANDBYS,
            f"{server.standbys} standbys receive changes; one that hangs may stop all changes",
            f"Run at least {MIN_STANDBYS} standbys.",
        ),
        (
            "off" in (server.fsync, server.full_page_writes),
            "fsync or full_page_writes is off: a power failure can destroy the database",
            "Set both to on.",
        ),
    )
