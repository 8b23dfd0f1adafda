"""Endpoints of OAuth 2.0 for machines: /api/v1/auth/token, /introspect, /revoke."""

from dataclasses import asdict
from typing import Any

from flask import Response

from userapi.machines.client_tokens import ClientSecret, TokenRequest
from userapi.machines.errors import (
    InvalidClient,
    InvalidScope,
    InvalidTarget,
    OAuthRequestInvalid,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from userapi.permissions import Permission

from .access import public, requires
from .auth import blp
from .blueprint import View, declare, declare_problems
from .bodies import FORM
from .client_credentials import claimed_client_id, read_token_request
from .context import current_actor, services
from .limits import count_failed_client, count_token_request
from .operations import WITH_A_BODY
from .responses import as_json
from .schemas.auth import Introspected, TokenQuestion
from .schemas.oauth import ClientToken, ClientTokenRequest

# JSON is accepted as well; generators of clients write code that fails for an operation with both.
BODY = {FORM: {"schema": ClientTokenRequest}}


def _ignores_query(view: View) -> View:
    """Accept any query string, which the view never reads."""
    view.accepts_query = True  # type: ignore[attr-defined]
    return view


def _with_oauth_errors(view: View) -> View:
    """Document that errors are what OAuth clients read, and those of a body."""
    faults = {status: WITH_A_BODY[status] for status in (408, 413, 415)}
    return declare(declare_problems(view, faults), problem_type="application/json")


@blp.route("/token", methods=["POST"])
@public
@_ignores_query
@_with_oauth_errors
@blp.doc(requestBody={"required": True, "content": BODY})
@blp.response(200, ClientToken)
@blp.raises(
    OAuthRequestInvalid,
    UnsupportedGrantType,
    InvalidClient,
    UnauthorizedClient,
    InvalidTarget,
    InvalidScope,
)
def token() -> Response:
    """Exchange a client id and an API key for an access token (RFC 6749 §4.4).

    The client id is the id of the service account, the secret one of its API keys, sent by Basic
    authentication or in the body. Without `scope` the token allows what the account may do at each
    request. A JSON object with the same members is accepted, too.
    """
    wanted, reply = _counted_request()
    issued = services().client_tokens.issue(
        wanted, actor=current_actor(), reply=reply, before_failure=count_failed_client
    )
    response = as_json(
        {
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            **({"scope": issued.scope} if issued.scope else {}),
        }
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def _counted_request() -> tuple[TokenRequest, object]:
    """Return the request, counted for its client, and the reply of Redis about its key.

    Raises OAuthRequestInvalid, TooMany.
    """
    client: ClientSecret | None = None
    try:
        wanted = read_token_request()
        client = wanted.client
    except OAuthRequestInvalid as refusal:
        services().client_tokens.count(refusal.code)
        raise
    finally:
        client_id = claimed_client_id() if client is None else client.client_id
        reply = count_token_request(client_id, client)
    return wanted, reply


@blp.route("/introspect", methods=["POST"])
@requires(Permission.TOKENS_INTROSPECT, clients=True)
@blp.arguments(TokenQuestion)
@blp.response(200, Introspected)
def introspect(body: dict[str, Any]) -> Any:
    """Get the state of a token or API key, for other services (RFC 7662)."""
    found = services().credential_introspection.inspect(body["token"])
    if found is None:
        return as_json({"active": False})
    return as_json({name: value for name, value in asdict(found).items() if value is not None})


@blp.route("/revoke", methods=["POST"])
@public
@blp.arguments(TokenQuestion)
@blp.response(200)
def revoke(body: dict[str, Any]) -> Response:
    """End the session of a token, a client token, or an API key. Works from any network.

    Anyone who finds an API key can revoke it here. An invalid token is not an error (RFC 7009).
    """
    services().credential_revocation.revoke(body["token"], actor=current_actor())
    return Response(status=200)
