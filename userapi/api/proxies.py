"""The address of the client: that of the socket, or that from trusted proxies."""

from collections.abc import Iterable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from userapi.infrastructure.network_addresses import canonical_address


def init_app(app: Flask, count: int) -> None:
    """Trust the last `count` proxies, and convert every client address to its canonical form."""
    serve = app.wsgi_app

    def serve_at_canonical_address(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        address = environ.get("REMOTE_ADDR", "")
        canonical = canonical_address(address)
        if canonical is None and count:
            # Proxies may write "unknown" or any identifier (RFC 7239 §6). With fewer proxies than
            # configured, the client controls the header.
            address = environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]
            canonical = canonical_address(address)
        environ["REMOTE_ADDR"] = canonical or address
        return serve(environ, start_response)

    app.wsgi_app = serve_at_canonical_address  # type: ignore[method-assign]
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            serve_at_canonical_address, x_for=count, x_proto=count
        )
