"""Values as the audit log stores them: JSON, without secrets."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from userapi.clock import rfc3339

MASK = "***"
# Words in the name of a field whose value must not be stored in the audit log.
SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|passcode|secret|token|credential|authorization|cookie"
    r"|(api|access|private|signing|encryption).?key|(^|[_.-])(hash|pin|otp)$",
    re.IGNORECASE,
)

Changes = Mapping[str, tuple[Any, Any]]


def masked_changes(changes: Changes) -> dict[str, list[Any]]:
    """Return the old and the new value of each field, with every secret masked."""
    return {
        field: [_without_secrets(field, plain(old)), _without_secrets(field, plain(new))]
        for field, (old, new) in changes.items()
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can represent it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _without_secrets(name: str, value: Any) -> Any:
    """Return a value with every secret in it masked, at any depth.

    Whether there is one at all, and switches such as `must_change_password`, are no secrets.
    """
    if value is None or isinstance(value, bool):
        return value
    if SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _without_secrets(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets("", item) for item in value]
    return value
