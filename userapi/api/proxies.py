"""Where a request comes from: the socket's address, or what trusted proxies in front say."""

from collections.abc import Iterable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from userapi.infrastructure.network_addresses import canonical_address


def init_app(app: Flask, count: int) -> None:
    """Trust so many of the last proxies, and give every request an address in one form."""
    serve = app.wsgi_app

    def serve_at_canonical_address(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        address = environ.get("REMOTE_ADDR", "")
        canonical = canonical_address(address)
        if canonical is None and count:
            # RFC 7239 §6 lets proxies write "unknown" or what they like, and where there are fewer
            # of them than are trusted it is the client who writes.
            address = environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]
            canonical = canonical_address(address)
        environ["REMOTE_ADDR"] = canonical or address
        return serve(environ, start_response)

    app.wsgi_app = serve_at_canonical_address  # type: ignore[method-assign]
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            serve_at_canonical_address, x_for=count, x_proto=count
        )
