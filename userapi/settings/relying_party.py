"""The relying party of passkeys (WebAuthn Level 3 §5.1.2): its RP ID and its origins.

Both come from settings and never from a request: a header such as Host can be forged.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
DOMAIN_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII,
)
# The SHA-256 of the certificate that signs an Android app, in base64url.
ANDROID_ORIGIN = re.compile(r"android:apk-key-hash:[A-Za-z0-9_-]{43}", re.ASCII)
LOCALHOST = "localhost"


def rp_id(raw: str) -> str:
    """Parse an RP ID: a domain name, which browsers compare in lower case."""
    name = raw.lower()
    if not _is_domain(name):
        raise ValueError("must be a domain name such as id.example.com, not an address or a URL")
    return name


def origins(raw: str) -> tuple[str, ...]:
    """Parse origins, separated by commas; return each in the spelling that browsers send."""
    parts = [part.strip() for part in raw.split(",") if part.strip()]
    parsed = [_origin(part) for part in parts]
    if not all(parsed):
        raise ValueError(
            "must be origins such as https://id.example.com, http://localhost:8000 or"
            " android:apk-key-hash:…, separated by commas"
        )
    return tuple(dict.fromkeys(filter(None, parsed)))


def origin_of(base_url: str) -> str | None:
    """Return the origin of a web site that can use passkeys, or None.

    Browsers allow https, and http on localhost. They know no RP ID that is an address, so a
    loopback address becomes localhost.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    return _browser_origin(parts.scheme, LOCALHOST if _is_loopback(host) else host, parts.port)


def host_of(origin: str) -> str:
    """Return the host of an origin; empty for the origin of an app."""
    return urlsplit(origin).hostname or ""


def is_within(origin: str, domain: str) -> bool:
    """Return whether the host of an origin is this domain or below it (WebAuthn §5.1.2)."""
    host = host_of(origin)
    return host == domain or host.endswith(f".{domain}")


def fits(domain: str, allowed: Sequence[str]) -> bool:
    """Return whether a browser at one of the origins may use this RP ID by itself."""
    return any(is_within(origin, domain) for origin in allowed)


def _origin(text: str) -> str | None:
    if ANDROID_ORIGIN.fullmatch(text):
        return text
    try:
        parts = urlsplit(text)
        has_more = any((parts.path, parts.query, parts.fragment, parts.username, parts.password))
        if has_more:
            return None
        return _browser_origin(parts.scheme, parts.hostname or "", parts.port)
    except ValueError:  # An invalid port or IPv6 address.
        return None


def _browser_origin(scheme: str, host: str, port: int | None) -> str | None:
    """Return the serialization of an origin (HTML §7.1.1), without the default port."""
    is_secure = scheme == "https" or (scheme == "http" and host == LOCALHOST)
    if not is_secure or not _is_domain(host) or port == 0:
        return None
    shown_port = "" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{shown_port}"


def _is_domain(host: str) -> bool:
    # A name that ends in a number is an IPv4 address to browsers (URL Standard §3.5).
    return DOMAIN_NAME.fullmatch(host) is not None and not host.rsplit(".", 1)[-1].isdigit()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
