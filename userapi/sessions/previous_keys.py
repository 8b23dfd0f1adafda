"""The keys of the previous release, which had no tags, on a Redis that both releases share.

During an upgrade each release must find the revocations of the other one. This release stores its
invalidations under both keys, and its lookups read both. A Redis Cluster was not supported before,
so it holds no such keys.
"""

from uuid import UUID

CATALOGUE = "userapi:live:roles"


def user_key(user_id: UUID) -> str:
    """Return the key of the version of a user."""
    return f"userapi:live:u:{user_id.hex}"
