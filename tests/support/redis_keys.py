"""The keys of the service in Redis, as tests look at them."""

from uuid import UUID

import redis

# The keys of the previous release have no tag.
PREVIOUS_KEYS = "userapi:live:[a-z]*"


def session_key_of(server: redis.Redis, session_id: str) -> str:
    """Return the only key of a session."""
    (key,) = server.scan_iter(f"userapi:live:{{*}}:s:{UUID(session_id).hex}")
    assert isinstance(key, bytes)
    return key.decode()


def forget_previous_keys(server: redis.Redis) -> None:
    """Delete what this release stores for the previous one, which also ends sessions."""
    for key in server.keys(PREVIOUS_KEYS):
        server.delete(key)
