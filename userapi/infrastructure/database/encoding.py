"""Connections to PostgreSQL use UTF-8, and the database must be able to store it.

Without an explicit encoding, libpq uses that of PGCLIENTENCODING or of the server. A database in
LATIN1 then fails at the first name that it cannot store, which may be one that is typed at log-in;
one in SQL_ASCII stores bytes without validating them.
"""

import psycopg2
import psycopg2.extensions

CLIENT_ENCODING = "UTF8"


class UnsupportedEncoding(psycopg2.OperationalError):
    """The database has another encoding than UTF8; the text says so in one line."""

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"DATABASE_URL: must be a database with the encoding UTF8; this one has {encoding},"
            " which cannot hold every name"
        )
        self.encoding = encoding


def require_unicode(connection: psycopg2.extensions.connection) -> None:
    """Close the connection and raise UnsupportedEncoding where the database is not in UTF-8.

    The server sends its encoding when it accepts a connection, so this costs no round trip.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (CLIENT_ENCODING, None):
        connection.close()
        raise UnsupportedEncoding(encoding)
