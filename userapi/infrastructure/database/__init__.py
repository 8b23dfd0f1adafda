"""The database: engine, tables, and the one way to change something, `transaction()`.

Reads use `reading()`, a plain connection in autocommit mode: one round trip per query and nothing
to end afterwards. Everything that writes uses `transaction()`; building blocks that belong to a
caller's transaction call `require_transaction()`.
"""

from userapi.infrastructure.database.connections import (
    SESSION_SETTINGS,
    ServiceConnection,
    connect_alone,
    has_pooler,
    require_no_pooler,
    require_unicode_database,
    statement_timeout,
)
from userapi.infrastructure.database.encoding import UnsupportedEncoding
from userapi.infrastructure.database.engine import db, direct_engine, init_app, init_migrations
from userapi.infrastructure.database.prepared import PreparedStatement
from userapi.infrastructure.database.statements import (
    DIALECTS,
    cte_parameters,
    dialect_of,
    excluded,
    insert_cte,
    insert_for,
    is_postgresql,
    notify,
    supports_writable_ctes,
    upsert,
    violated_constraint,
)
from userapi.infrastructure.database.tables import (
    Base,
    CountingKey,
    JsonDocument,
    UuidKey,
    new_id,
    partial_index,
    table_of,
)
from userapi.infrastructure.database.transactions import (
    LONG_READ_SECONDS,
    after_commit,
    autocommit,
    counting,
    keep_to_indexes,
    patient_reading,
    reading,
    require_transaction,
    snapshot,
    transaction,
)

__all__ = [
    "DIALECTS",
    "LONG_READ_SECONDS",
    "SESSION_SETTINGS",
    "Base",
    "CountingKey",
    "JsonDocument",
    "PreparedStatement",
    "ServiceConnection",
    "UnsupportedEncoding",
    "UuidKey",
    "after_commit",
    "autocommit",
    "connect_alone",
    "counting",
    "cte_parameters",
    "db",
    "dialect_of",
    "direct_engine",
    "excluded",
    "has_pooler",
    "init_app",
    "init_migrations",
    "insert_cte",
    "insert_for",
    "is_postgresql",
    "keep_to_indexes",
    "new_id",
    "notify",
    "partial_index",
    "patient_reading",
    "reading",
    "require_no_pooler",
    "require_transaction",
    "require_unicode_database",
    "snapshot",
    "statement_timeout",
    "supports_writable_ctes",
    "table_of",
    "transaction",
    "upsert",
    "violated_constraint",
]
