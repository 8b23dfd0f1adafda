"""The head of the chain of seals: reads it, and checks whether it is genuine."""

import hmac
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from userapi.audit.chain import Head
from userapi.audit.seal_keys import UNNAMED, SealKeys
from userapi.errors import Conflict


class SealsBroken(Conflict):
    """The head of the chain is not genuine, or the chain does not match it."""

    code = "audit_seals_broken"
    title = "The chain of audit seals is broken. Run `flask audit verify` to find the position."


class SealKeyMissing(Conflict):
    """The chain was sealed with a key that is neither the current nor a previous one."""

    code = "audit_seal_key_missing"
    title = (
        "The audit log is sealed with a key that is not here. Set AUDIT_SEAL_KEY_PREVIOUS or"
        " ENCRYPTION_KEY_PREVIOUS to it, or begin a new chain with `flask audit anchor`."
    )

    def __init__(self, key_id: str) -> None:
        """`key_id` is the fingerprint of the missing key."""
        super().__init__()
        self.key_id = key_id


def genuine_head(keys: SealKeys, connection: Connection | Session, row: Row[Any]) -> Head:
    """Return the head in a row. Raises SealsBroken, SealKeyMissing.

    The head of a chain without a seal has no MAC, because migrations have no key. One that an
    earlier release wrote does not name its key.
    """
    head = stored_head(row)
    if head == Head() and row.mac == "":
        return head
    if row.key_id is None:
        if keys.fitting(head, row.mac) is not None:
            return head
        if keys.of_seal(connection, None) is None:
            raise SealKeyMissing(UNNAMED)
        raise SealsBroken()
    chain = keys.named(row.key_id)
    if chain is None:
        raise SealKeyMissing(row.key_id)
    if not hmac.compare_digest(row.mac, chain.head_mac(head)):
        raise SealsBroken()
    return head


def stored_head(row: Row[Any]) -> Head:
    """Return the head in a row without verifying it."""
    return Head(**{name: getattr(row, name) for name in Head.__dataclass_fields__})
