"""Parsers: the text of a variable → its value.

Each raises ValueError with the valid values. The message never contains the invalid value, which
may be a secret. The caller puts the name of the variable in front of it.
"""

import os
import re
import ssl
from collections.abc import Callable
from email.utils import parseaddr
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import urlsplit

from userapi.characters import is_blank
from userapi.permissions import is_permission
from userapi.rabbitmq_nodes import rabbitmq_nodes

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MIN_SECRET_BYTES = 32
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?\.?", re.ASCII)


# Text, numbers, choices


def text(maximum: int = 2000) -> Callable[[str], str]:
    """Return the parser of 1 to `maximum` characters without control characters."""

    def parse(raw: str) -> str:
        if not raw or len(raw) > maximum or any(ord(c) < 32 for c in raw):
            raise ValueError(f"must have 1 to {maximum} printable characters")
        return raw

    return parse


def visible_text(maximum: int) -> Callable[[str], str]:
    """Return the parser of a text that contains at least one visible character."""
    parse_text = text(maximum)

    def parse(raw: str) -> str:
        if is_blank(raw):
            raise ValueError(f"must have 1 to {maximum} characters, one of them visible")
        return parse_text(raw)

    return parse


def issuer_name(raw: str) -> str:
    """Parse the name of a service in authenticator apps; a colon would end it."""
    name = visible_text(64)(raw)
    if ":" in name:
        raise ValueError("must have 1 to 64 characters without a colon")
    return name


def names(raw: str) -> tuple[str, ...]:
    """Parse names of at most 64 characters, separated by commas."""
    return tuple(dict.fromkeys(text(64)(part) for part in _parts(raw)))


def permissions(raw: str) -> tuple[str, ...]:
    """Parse permissions separated by commas, such as users:delete or roles:*."""
    parsed = _parts(raw)
    if not all(map(is_permission, parsed)):
        raise ValueError(
            "must be permissions such as users:delete, roles:* or *, separated by commas"
        )
    return tuple(dict.fromkeys(parsed))


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return the parser of a whole number in this range."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,12}", raw) or not minimum <= int(raw) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(raw)

    return parse


def boolean(raw: str) -> bool:
    """Parse true, 1, yes, on and false, 0, no, off, in any case."""
    lowered = raw.lower()
    if lowered in {"true", "1", "yes", "on"}:
        return True
    if lowered in {"false", "0", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def choice(*options: str) -> Callable[[str], str]:
    """Return the parser of one of these options, written in any case."""

    def parse(raw: str) -> str:
        for option in options:
            if raw.lower() == option.lower():
                return option
        raise ValueError(f"must be one of {', '.join(options)}")

    return parse


def rate(raw: str) -> str:
    """Parse a rate limit, such as 20/minute."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", raw):
        raise ValueError("must be a rate such as 20/minute (second, minute, hour or day)")
    return raw


# Secrets


def long_secret(raw: str) -> str:
    """Parse a secret of at least 32 bytes."""
    if len(raw.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must be a secret of at least {MIN_SECRET_BYTES} bytes")
    return raw


def long_secrets(raw: str) -> tuple[str, ...]:
    """Parse secrets of at least 32 bytes each, separated by commas."""
    return tuple(long_secret(part) for part in _parts(raw))


def bearer_token(raw: str) -> str:
    """Parse a token that can be sent in an Authorization header."""
    if not re.fullmatch(r"[!-~]{1,500}", raw):
        raise ValueError("must have 1 to 500 visible ASCII characters, as a header requires")
    return raw


def key_prefix(raw: str) -> str:
    """Parse the beginning of API keys."""
    if not re.fullmatch(r"[a-z][a-z0-9]{1,9}", raw):
        raise ValueError("must have 2 to 10 characters of a-z and 0-9, and begin with a letter")
    return raw


# Hosts, origins, URLs


def is_host(candidate: str) -> bool:
    """Return whether the text is a host name or an IP address, without a port."""
    if HOST_NAME.fullmatch(candidate):
        return True
    try:
        return bool(IPv6Address(candidate.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def host(raw: str) -> str:
    """Parse a host; return it as URLs write it, an IPv6 address in brackets."""
    if not is_host(raw):
        raise ValueError("must be a host name or an IP address, without a port")
    return _bracketed(raw)


def host_without_brackets(raw: str) -> str:
    """Parse a host; return it as socket libraries expect it, an IPv6 address without brackets."""
    return host(raw).strip("[]")


def trusted_hosts(raw: str) -> tuple[str, ...]:
    """Parse host names separated by commas; `.example.com` includes subdomains."""
    hosts = _parts(raw)
    if not all(is_host(name.removeprefix(".")) for name in hosts):
        raise ValueError("must be host names such as id.example.com, separated by commas, no ports")
    return tuple(_bracketed(name) for name in hosts)


def origins(raw: str) -> tuple[str, ...]:
    """Parse origins separated by commas, or `*`."""
    parsed = _parts(raw)
    for origin in parsed:
        if origin != "*" and not _is_http_url(origin, with_path=False):
            raise ValueError("must be origins such as https://app.example.com, separated by commas")
    return parsed


def url(*schemes: str) -> Callable[[str], str]:
    """Return the parser of a URL with one of these schemes."""

    def parse(raw: str) -> str:
        try:
            parts = urlsplit(raw)
            is_valid = parts.scheme in schemes and (parts.port or 1) > 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ValueError(
                f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}"
            )
        return raw

    return parse


def http_url(raw: str) -> str:
    """Parse the base URL of a web site; return it without a slash at the end."""
    if not _is_http_url(url("http", "https")(raw), with_path=True):
        raise ValueError("must be an address such as https://id.example.com")
    return raw.rstrip("/")


def contact_uri(raw: str) -> str:
    """Parse a contact as security.txt (RFC 9116) defines it."""
    if not re.fullmatch(r"(mailto:|https://|tel:)[!-~]{1,290}", raw):
        raise ValueError("must be a URI that begins with mailto: or https:// or tel:")
    return raw


def sender(raw: str) -> str:
    """Parse the sender of mails: an address, with or without a name."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(text(320)(raw))[1]):
        raise ValueError("must be an address such as User Service <no-reply@example.com>")
    return raw


# Servers


def database_name(raw: str) -> str:
    """Parse the name of a database, which becomes part of its URL."""
    if not re.fullmatch(r"[^\s/?#%]{1,63}", raw):
        raise ValueError("must have 1 to 63 characters, without spaces and / ? # %")
    return raw


def rabbitmq_url(raw: str) -> str:
    """Parse the URL of one or more nodes of RabbitMQ."""
    for node in rabbitmq_nodes(raw):
        if not is_host(node.host):
            raise ValueError("must have host names or IP addresses between amqp:// and /")
        if node.ca_file is not None:
            readable_file(node.ca_file)
    return raw


# Files


def path(raw: str) -> Path:
    """Parse a path; a relative one is relative to the folder of the service, as `.env` is."""
    if "\0" in raw:
        raise ValueError("must be a path")
    return PROJECT_ROOT / raw


def readable_file(raw: str) -> Path:
    """Parse the path of a file that this process can read."""
    file = path(raw)
    if not file.is_file() or not os.access(file, os.R_OK):
        raise ValueError("must be the path of a readable file")
    return file


def ca_file(raw: str) -> Path:
    """Parse the path of a file with certificates of authorities."""
    file = readable_file(raw)
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as exc:
        raise ValueError("must be the path of a file with CA certificates in PEM form") from exc
    return file


def _parts(raw: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in raw.split(",") if part.strip())


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _is_http_url(candidate: str, *, with_path: bool) -> bool:
    try:
        parts = urlsplit(candidate)
        is_valid = parts.scheme in {"http", "https"} and (parts.port or 1) > 0
    except ValueError:
        return False
    forbidden = (parts.query, parts.fragment, parts.username, "" if with_path else parts.path)
    return (
        is_valid
        and is_host(parts.hostname or "")
        and not any(forbidden)
        and not re.search(r"\s", candidate)
    )
