"""Well-known locations (RFC 8615): public keys, the security contact, and related origins."""

from datetime import timedelta
from urllib.parse import urlsplit

from flask import Response

from userapi.clock import rfc3339
from userapi.errors import NotFound

from .access import public
from .blueprint import Blueprint
from .context import services
from .responses import as_json
from .schemas.discovery import JsonWebKeySet
from .schemas.oauth import AuthorizationServer
from .schemas.passkeys import RelatedOrigins

blp = Blueprint(
    "wellknown",
    __name__,
    url_prefix="/.well-known",
    description="Public keys, metrics and the security contact.",
)

MAX_AGE_SECONDS = 300
CONTACT_VALID_FOR = timedelta(days=180)


class NoRelatedOrigins(NotFound):
    """All pages that use the passkeys are in the domain of the RP ID."""

    title = "There are no related origins."


@blp.route("/jwks.json", methods=["GET"])
@public
@blp.response(200, JsonWebKeySet)
def jwks() -> Response:
    """Get the public keys that verify access tokens (RFC 7517)."""
    response = as_json(services().keys.jwks())
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return response


@blp.route("/oauth-authorization-server", methods=["GET"])
@public
@blp.response(200, AuthorizationServer)
def authorization_server() -> Response:
    """Get the metadata of this authorization server (RFC 8414)."""
    return _metadata()


def _metadata() -> Response:
    settings = services().settings
    base = settings.public_base_url
    response = as_json(
        {
            "issuer": settings.jwt_issuer,
            "token_endpoint": f"{base}/api/v1/auth/token",
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "revocation_endpoint": f"{base}/api/v1/auth/revoke",
            "introspection_endpoint": f"{base}/api/v1/auth/introspect",
            "grant_types_supported": ["client_credentials"],
            # Required, and must not be empty. "none" is a registered type.
            "response_types_supported": ["none"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "Bearer"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "service_documentation": f"{base}/docs",
        }
    )
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return response


@blp.route("/oauth-authorization-server/<path:issuer_path>", methods=["GET"])
@public
@blp.response(200, AuthorizationServer)
def authorization_server_of_path(issuer_path: str) -> Response:
    """Get the metadata where clients expect that of an issuer with a path.

    RFC 8414 §3.1.
    """
    if issuer_path != urlsplit(services().settings.jwt_issuer).path.lstrip("/"):
        raise NotFound()
    return _metadata()


@blp.route("/security.txt", methods=["GET"])
@public
@blp.response(200, {"type": "string"}, content_type="text/plain")
def security() -> Response:
    """Get the contact for reports of vulnerabilities (RFC 9116)."""
    settings, now = services().settings, services().clock.now()
    text = (
        f"Contact: {settings.security_contact}\n"
        f"Expires: {rfc3339(now + CONTACT_VALID_FOR)}\n"
        "Preferred-Languages: en\n"
        f"Canonical: {settings.public_base_url}/.well-known/security.txt\n"
    )
    return Response(text, mimetype="text/plain")


@blp.route("/webauthn", methods=["GET"])
@public
@blp.response(200, RelatedOrigins)
@blp.raises(NoRelatedOrigins)
def webauthn() -> Response:
    """Get the origins of other domains that may use the passkeys (related origins)."""
    origins = services().relying_party.related_origins
    if not origins:
        raise NoRelatedOrigins()
    response = as_json({"origins": origins})
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return response
