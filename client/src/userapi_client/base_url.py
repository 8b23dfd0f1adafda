"""The address of the service."""

import ssl
from urllib.parse import urlsplit


def checked_base_url(text: str) -> str:
    """Return the address without a slash at its end. Raises ValueError for anything but a URL.

    The message does not repeat the text, which may contain a password.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("The address of the service must be an http or https URL.")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("The address of the service must have no credentials, query or fragment.")
    return text.rstrip("/")


def tls_context(base_url: str) -> ssl.SSLContext | bool:
    """Return what verifies certificates: True means the authorities of the system.

    Without TLS it is a context without authorities, because loading them is slow.
    """
    return True if base_url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
