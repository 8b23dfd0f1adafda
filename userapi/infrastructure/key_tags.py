"""Hash tags of keys in Redis: all keys of a script have the same one, so they lie in one slot.

In Redis Cluster a key belongs to one of 16384 slots, and a script may use the keys of one slot.
Only the tag, the part of a key in braces, decides the slot. 256 tags, one for each 64 slots, spread
the users evenly over any number of servers. A single server ignores them.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from binascii import crc_hqx
from itertools import count
from uuid import UUID

SLOTS = 16384
NUMBER_OF_TAGS = 256


def _tags() -> tuple[str, ...]:
    """Return the tags: the n-th is the first number whose slot is in the n-th group of slots."""
    tags: dict[int, str] = {}
    numbers = count()
    while len(tags) < NUMBER_OF_TAGS:
        number = str(next(numbers))
        group = crc_hqx(number.encode(), 0) % SLOTS * NUMBER_OF_TAGS // SLOTS
        tags.setdefault(group, f"{{{number}}}")
    return tuple(tag for _, tag in sorted(tags.items()))


TAGS = _tags()


def tag_of_user(user_id: UUID) -> str:
    """Return the tag of all keys about a user: the last byte of a UUIDv7 is random."""
    return TAGS[user_id.int & 0xFF]


def tag_of_text(text: str) -> str:
    """Return the tag of a key that is used alone."""
    return TAGS[crc_hqx(text.encode(), 0) % NUMBER_OF_TAGS]
