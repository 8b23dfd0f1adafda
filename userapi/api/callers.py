"""Which rate limit a request counts for: that of a user, a service account, or a network.

A request counts for a user only if the session of its token or cookie is live, and for the owner of
an API key only if the key is. A request with a forged, expired or revoked token counts for its
network: a token that is no longer valid cannot exhaust the limit of its owner.
"""

import ipaddress
from dataclasses import dataclass

from flask import current_app, request

from userapi.authentication.token_status import SessionReference
from userapi.errors import Unauthenticated
from userapi.infrastructure.rate_counters import Hit, Rate, key_of_user
from userapi.machines.models import OwnerType
from userapi.machines.status import KeyReference
from userapi.wiring.services import Services

from .access import browser_session, require_live, use_cached_session
from .client_credentials import client_reference, sends_client_credentials
from .context import request_state, unproxied
from .key_access import presented, require_live_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates by which callers without a named limit count."""

    default: Rate
    service: Rate


@dataclass(frozen=True, slots=True)
class Counted:
    """The count of a request, what it was counted by, and the rate that applies."""

    hit: Hit
    key: str
    rate: Rate


def client_network() -> str:
    """Return what an anonymous caller counts by: an IPv4 address, or a /64 of IPv6."""
    text = unproxied(request).remote_addr or "unknown"
    if ":" not in text:
        return text
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return str(ipaddress.ip_network((address, 64), strict=False))


def caller_reference() -> SessionReference | KeyReference | None:
    """Return the session of the request's token or cookie, or its API key.

    None without a valid signature or checksum. The session or key may have ended.
    """
    current = unproxied(request)
    if current.blueprint == "console":
        return browser_session()
    if "HTTP_AUTHORIZATION" not in current.environ:
        return None
    try:
        if sends_client_credentials():
            return client_reference() if _accepts_clients() else None
        return presented()
    except Unauthenticated:
        return None


def _accepts_clients() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return bool(getattr(view, "accepts_clients", False))


def count_caller(services: Services, rates: Rates) -> Counted:
    """Count this request for its user or service, otherwise for its network.

    It counts for a user or service only if the session or key is live. Redis decides in the round
    trip that returns the copy. If there is none, the database is read first. The result is stored
    for the view.
    """
    network, own = client_network(), caller_reference()
    if own is None:
        hit = services.rates.hit(network, seconds=rates.default.seconds)
        return Counted(hit, network, rates.default)
    if isinstance(own, KeyReference):
        return _count_key(services, rates, own, network)
    live, rate = services.live_sessions, rates.default
    lookup = live.lookup(own.session_id, user_id=own.user_id, session_version=own.session_version)
    if lookup is not None:
        condition = live.liveness(
            own.session_id, user_id=own.user_id, session_version=own.session_version
        )
        decided = services.rates.hit_if(
            own.user_id, seconds=rate.seconds, condition=condition, after=lookup
        )
        use_cached_session(own, decided.reply)
        if decided.hit is not None:
            return Counted(decided.hit, key_of_user(own.user_id), rate)
        if decided.is_met is False:
            return Counted(services.rates.hit(network, seconds=rate.seconds), network, rate)
    key = network
    try:
        require_live(own)
        key = key_of_user(own.user_id)
    except Unauthenticated:
        pass  # The guard of the view rejects the request if it requires a session.
    finally:
        hit = services.rates.hit(key, seconds=rate.seconds)
    return Counted(hit, key, rate)


def _count_key(services: Services, rates: Rates, reference: KeyReference, network: str) -> Counted:
    """Count a request with a key: for its owner if the key is live, otherwise for its network."""
    rate = rates.service if reference.owner_type is OwnerType.SERVICE else rates.default
    looked_up = services.live_keys.lookup(reference)
    if looked_up is not None:
        decided = services.rates.hit_if(
            looked_up.owner_id,
            seconds=rate.seconds,
            condition=looked_up.condition,
            after=looked_up.command,
        )
        request_state().cached_key = decided.reply
        if decided.hit is not None:
            return Counted(decided.hit, key_of_user(looked_up.owner_id), rate)
    key, applied = network, rates.default
    try:
        key, applied = key_of_user(require_live_key(reference).owner_id), rate
    except Unauthenticated:
        pass  # The guard of the view rejects the request if it requires a caller.
    finally:
        hit = services.rates.hit(key, seconds=applied.seconds)
    return Counted(hit, key, applied)
