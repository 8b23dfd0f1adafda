"""Authentication of a request by an API key or a client token.

The text of a key says which one it is; whether it is accepted is checked once per request.
"""

from functools import partial

from flask import request

from userapi.actor import Actor
from userapi.authentication.token_claims import AccessClaims
from userapi.errors import Forbidden, ServiceError, Unauthenticated
from userapi.infrastructure.network_addresses import canonical_address
from userapi.machines.client_tokens import acting_as, actor_type_of
from userapi.machines.errors import KeyMalformed
from userapi.machines.key_text import looks_like_key
from userapi.machines.status import KeyReference, LiveKey

from .authorization import bearer_token
from .context import request_state, services, unproxied
from .credentials import refusal_of_key
from .restrictions import PasswordChangeRequired

ACCEPTED = "accepted"


def presented() -> AccessClaims | KeyReference:
    """Return the claims of a user's token, or the reference of a key or of a client token.

    Neither is known to be live. Raises AuthenticationRequired, TokenInvalid, TokenExpired.
    """
    state = request_state()
    if state.key_reference is not None:
        return state.key_reference
    if state.claims is not None:
        return state.claims
    token, keys = bearer_token(), services().key_authentication
    if looks_like_key(token):
        state.key_reference = reference = keys.reference(token)
        return reference
    claims = services().token_status.verify_access(token)
    if claims.client is not None:
        state.key_reference = reference = keys.reference_of(claims)
        return reference
    state.claims = claims
    return claims


def require_presented() -> AccessClaims | KeyReference:
    """Return what `presented` returns, for a view that requires a caller.

    A malformed key is counted as refused. It is not recorded: anyone can make one up.
    """
    try:
        return presented()
    except KeyMalformed as refusal:
        services().key_authentication.count(refusal.code)
        raise


def require_live_key(reference: KeyReference) -> LiveKey:
    """Return the live key of this request. Checked once per request.

    Raises TokenInvalid, TokenRevoked, TokenExpired.
    """
    state = request_state()
    if state.checked_key is None:
        state.checked_key = _check(reference)
    if isinstance(state.checked_key, Unauthenticated):
        raise state.checked_key
    return state.checked_key


def _check(reference: KeyReference) -> LiveKey | Unauthenticated:
    reply = request_state().cached_key
    try:
        return services().key_authentication.require_live(reference, reply=reply)
    except Unauthenticated as refusal:
        return refusal


def require_usable_key(reference: KeyReference) -> LiveKey:
    """Return the live key if it can be used from the address of this request.

    Also raises PasswordChangeRequired, NetworkNotAllowed. A refusal is counted, and recorded once a
    minute.
    """
    try:
        live = require_live_key(reference)
        if live.must_change_password:
            raise PasswordChangeRequired()
        services().key_authentication.require_network(live, client_address())
    except (Unauthenticated, Forbidden) as refusal:
        _record_refusal(reference, refusal)
        raise
    return live


def authenticate_by_key(reference: KeyReference) -> None:
    """Make the owner of the key the actor of this request, with what the key may do now.

    Raises what `require_usable_key` raises.
    """
    keys, state = services().key_authentication, request_state()
    live = require_usable_key(reference)
    keys.count(ACCEPTED)
    state.live_key = live
    state.actor = actor_of_key(live)


def actor_of_key(live: LiveKey) -> Actor:
    """Return the owner of the key as the actor of this request, with what the key may do now."""
    all_services = services()
    refusal = partial(refusal_of_key, actor_type_of(live.owner_type))
    return acting_as(
        live,
        request_state().actor,
        permissions=all_services.key_authentication.permissions_of(live),
        withheld=all_services.freshness.withheld_from_key(refusal),
    )


def _record_refusal(reference: KeyReference, refusal: ServiceError) -> None:
    services().key_authentication.count(refusal.code)
    services().key_refusals.record(reference, refusal.code, actor=request_state().actor)


def client_address() -> str | None:
    """Return the address of the client in the form in which addresses are compared."""
    address = unproxied(request).remote_addr
    return None if address is None else canonical_address(address)
