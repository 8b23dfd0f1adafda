"""The form of the copies of live sessions in Redis."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import structlog

from userapi.infrastructure.key_tags import tag_of_user
from userapi.sessions.authentication_level import Authentication
from userapi.sessions.status import LiveSession, Profile

log = structlog.get_logger(__name__)

MAX_CACHED_COPIES = 4096


def in_doubt_key(session_id: UUID, user_id: UUID) -> str:
    """Return the key of a session whose rotation is in doubt."""
    return f"userapi:live:{tag_of_user(user_id)}:d:{session_id.hex}"


def encoded(live: LiveSession) -> bytes:
    """Return the text of the copy of a session: JSON, and the user's profile on the next line."""
    profile = live.profile
    text = orjson.dumps(
        [
            live.session_id.hex,
            live.user_id.hex,
            live.username,
            live.roles,
            live.must_change_password,
            live.ends_at.timestamp(),
            profile and profile.etag,
            live.mfa_enabled,
            live.authentication.acr,
            live.authentication.amr,
            live.authentication.authenticated_at.timestamp(),
        ]
    )
    return b"%b\n%b" % (text, profile.text if profile else b"")


@lru_cache(maxsize=MAX_CACHED_COPIES)
def decoded(copy: bytes) -> LiveSession | None:
    """Return the session of a copy. None, a miss, for the form of another release."""
    try:
        return _parsed(copy)
    except (AttributeError, TypeError, ValueError):
        log.warning("sessions.copy_unreadable")
        return None


def _parsed(copy: bytes) -> LiveSession:
    first_line, _, shown = copy[1:].partition(b"\n")
    session_version, access_version, catalogue_version, _, text = first_line.split(b" ", 4)
    fields: list[Any] = orjson.loads(text)
    session_id, user_id, username, roles, must_change_password, ends_at, etag, *proof = fields
    mfa_enabled, acr, amr, authenticated_at = proof
    return LiveSession(
        session_id=UUID(session_id),
        user_id=UUID(user_id),
        username=username,
        roles=tuple(roles),
        session_version=int(session_version),
        access_version=int(access_version),
        catalogue_version=int(catalogue_version),
        must_change_password=must_change_password,
        mfa_enabled=mfa_enabled,
        authentication=Authentication(
            acr, tuple(amr), datetime.fromtimestamp(authenticated_at, UTC)
        ),
        ends_at=datetime.fromtimestamp(ends_at, UTC),
        profile=None if etag is None else Profile(shown, etag),
    )
