"""Connections to PostgreSQL speak UTF-8, to a database that can hold it.

Without being asked for an encoding, libpq takes that of PGCLIENTENCODING or of the server. A
database in LATIN1 then fails for the first name that it cannot hold, which may be one that somebody
types at log-in; one in SQL_ASCII stores bytes that it does not understand.
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

    The server tells its encoding as it accepts a connection, so this costs no round trip.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (CLIENT_ENCODING, None):
        connection.close()
        raise UnsupportedEncoding(encoding)
