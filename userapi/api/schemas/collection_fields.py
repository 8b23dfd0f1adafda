"""Fields for lists and objects, which convert nothing (see `fields`)."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from marshmallow import ValidationError, fields, validate

from userapi.api.field_errors import CodedMessage
from userapi.machines.networks import MAX_NETWORKS
from userapi.roles.models import MAX_ROLES

from .fields import Text, require_clean, wrong_type

CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
MAX_INTEGER = 2**63 - 1


class TextList(fields.List[str]):
    """A list of texts."""

    def __init__(self, *, max_items: int, max_length: int, **kwargs: Any) -> None:
        self.max_items = max_items
        length = validate.Length(max=max_items)
        super().__init__(Text(max_length=max_length), validate=length, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise wrong_type("a list of strings")
        return super()._deserialize(value, attr, data, **kwargs)

    def _validate(self, value: Any) -> None:
        """Check the length; the validator in the constructor only documents it."""
        if len(value) > self.max_items:
            message = f"Must contain at most {self.max_items} items."
            raise ValidationError(CodedMessage(message, "too_long"))


class RoleNameList(TextList):
    """The names of the roles of one user."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_items=MAX_ROLES, max_length=64, **kwargs)

    def _validate(self, value: Any) -> None:
        if len(set(value)) > MAX_ROLES:
            raise ValidationError(
                CodedMessage(f"Must have at most {MAX_ROLES} roles.", "too_many_roles")
            )


class NetworkList(TextList):
    """Addresses and CIDR blocks. `parse_networks` checks them and their number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_items=MAX_NETWORKS, max_length=64, **kwargs)

    def _validate(self, value: Any) -> None:
        """Do nothing: the subject reports a list of any length that is wrong in the same way."""


class UuidList(fields.List[UUID]):
    """A list of 1 to `max_items` ids."""

    def __init__(self, *, max_items: int, **kwargs: Any) -> None:
        self.max_items = max_items
        super().__init__(fields.UUID(), validate=validate.Length(min=1, max=max_items), **kwargs)

    def _validate(self, value: Any) -> None:
        """Do nothing: `_deserialize` checks the bounds, which the validator only documents."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise wrong_type("a list of ids")
        if not 1 <= len(value) <= self.max_items:
            code = "too_long" if value else "too_short"
            raise ValidationError(CodedMessage(f"Must contain 1 to {self.max_items} ids.", code))
        faults = {
            index: [CodedMessage("Must be a UUID.", "invalid_id")]
            for index, item in enumerate(value)
            if not isinstance(item, str) or not CANONICAL_UUID.fullmatch(item)
        }
        if faults:
            raise ValidationError(faults)
        return [UUID(item) for item in value]


class JsonObject(fields.Dict):
    """A JSON object of at most `max_bytes`."""

    def __init__(self, *, max_bytes: int, **kwargs: Any) -> None:
        self.max_bytes = max_bytes
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise wrong_type("an object")
        _require_storable(value)
        if len(orjson.dumps(value)) > self.max_bytes:
            raise ValidationError(
                CodedMessage(f"Must be at most {self.max_bytes} bytes.", "too_long")
            )
        return value


def _require_storable(value: Any) -> None:
    if isinstance(value, str):
        require_clean(value)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValidationError(
            CodedMessage("Must not contain a number beyond 64 bits.", "out_of_range")
        )
    elif isinstance(value, Mapping):
        for key, item in value.items():
            require_clean(key)
            _require_storable(item)
    elif isinstance(value, list):
        for item in value:
            _require_storable(item)
