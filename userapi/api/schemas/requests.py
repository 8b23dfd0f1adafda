"""Base classes of the schemas of requests."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema


class StrictSchema(Schema):
    """Base class of requests: an unknown field is an error."""

    body_optional = False

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for fields that have the right form and break another rule.

        Called if other fields are invalid, so that one response names every invalid field.
        Otherwise the use case checks these rules. It alone checks rules about stored state.
        """

    class Meta:
        unknown = "raise"


class OptionalBody(StrictSchema):
    """Base class of requests that may have no body."""

    body_optional = True
