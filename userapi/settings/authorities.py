"""TLS_CA_FILE in the URLs of the servers.

Each URL that requires TLS and names no authorities gets the file in the option of its library.
"""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from userapi.rabbitmq_nodes import CA_OPTION
from userapi.settings.transport import is_over_network, is_postgresql

# Without one of these PostgreSQL may answer without TLS, and libpq then sends the password.
_TLS_MODES = ("require", "verify-ca", "verify-full")
_REDIS_OPTIONS = ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")


def database_with(ca_file: Path, url: str) -> str:
    """Return the URL of a database; libpq checks the server's name, too, only with verify-full.

    A URL without `sslmode` requires TLS by this if its server is on another machine.
    """
    if not is_postgresql(url):
        return url
    options = dict(_options(url))
    needs_tls = options["sslmode"] in _TLS_MODES if "sslmode" in options else is_over_network(url)
    if not needs_tls or "sslrootcert" in options:
        return url
    return _with_options(url, options | {"sslmode": "verify-full", "sslrootcert": str(ca_file)})


def redis_with(ca_file: Path, url: str) -> str:
    """Return the URL of Redis."""
    if not url.lower().startswith("rediss"):
        return url
    return _with_option(url, "ssl_ca_certs", ca_file, unless=_REDIS_OPTIONS)


def rabbitmq_with(ca_file: Path, url: str) -> str:
    """Return the URL of RabbitMQ, in which each node may name its own authority."""
    return ";".join(
        _with_option(part, CA_OPTION, ca_file, unless=(CA_OPTION,))
        if part.lower().startswith("amqps:")
        else part
        for part in url.split(";")
    )


def _with_option(url: str, name: str, ca_file: Path, *, unless: Iterable[str]) -> str:
    options = dict(_options(url))
    if options.keys() & set(unless):
        return url
    return _with_options(url, options | {name: str(ca_file)})


def _with_options(url: str, options: dict[str, str]) -> str:
    # libpq does not read + as a blank.
    return f"{url.partition('?')[0]}?{urlencode(options, safe='/', quote_via=quote)}"


def _options(url: str) -> list[tuple[str, str]]:
    return parse_qsl(url.partition("?")[2], keep_blank_values=True)
