"""Proxies in front of the service: what they say of where a request comes from."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

# Some proxies write the port of the client, too.
WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+", re.ASCII)


def init_app(app: Flask, count: int) -> None:
    """Believe so many of the last proxies, and nothing that came before them."""
    if not count:
        return
    serve = app.wsgi_app

    def serve_at_plain_address(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        peer = environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]
        environ["REMOTE_ADDR"] = plain_address(environ["REMOTE_ADDR"]) or peer
        return serve(environ, start_response)

    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        serve_at_plain_address, x_for=count, x_proto=count
    )


@lru_cache(maxsize=4096)
def plain_address(text: str) -> str | None:
    """Return the IP address that a proxy names, without port or zone; None if it is none.

    RFC 7239 §6 lets proxies write "unknown" or what they like, and where fewer of them stand in
    front than are counted it is the client who writes.
    """
    ported = WITH_PORT.fullmatch(text)
    address = (ported[1] or ported[2]) if ported else text
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return None
