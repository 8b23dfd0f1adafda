"""Schemas of what proves an identity: a code, or another method in its place."""

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import ValidationError, validates_schema

from userapi.api.field_errors import CodedMessage

from .fields import PastedText
from .passkeys import assertion_field
from .requests import StrictSchema
from .user_fields import Password

MAX_MFA_TOKEN_CHARACTERS = 512
MAX_CODE_CHARACTERS = 64


class Code(PastedText):
    """The code of an authenticator app, or a recovery code."""

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(
            required=required,
            load_only=True,
            min_length=1,
            max_length=MAX_CODE_CHARACTERS,
            metadata={"example": "492039"},
        )


class OneProof(StrictSchema):
    """Base class of requests with exactly one of several proofs."""

    proofs: ClassVar[tuple[str, ...]]

    @validates_schema
    def require_one_proof(self, given: Mapping[str, Any], **_kwargs: Any) -> None:
        """Raise ValidationError unless exactly one of the proofs is given."""
        if len(given.keys() & set(self.proofs)) != 1:
            message = CodedMessage(f"Send exactly one of {', '.join(self.proofs)}.", "exactly_one")
            raise ValidationError({name: [message] for name in self.proofs})


class MfaToken(StrictSchema):
    """The mfa_token of the log-in."""

    mfa_token = PastedText(
        required=True,
        load_only=True,
        min_length=1,
        max_length=MAX_MFA_TOKEN_CHARACTERS,
        metadata={"example": "Zm9yIHRoZSBzZWNvbmQgc3RlcA"},
    )


class SecondStep(MfaToken, OneProof):
    """The mfa_token of the log-in, and a code or a passkey."""

    proofs = ("code", "credential")

    code = Code()
    credential = assertion_field()


class PasswordProof(StrictSchema):
    """The current password."""

    password = Password(required=True, min_length=1)


class StepUpProof(OneProof):
    """The current password; with a second factor, a code or a passkey."""

    proofs = ("password", "code", "credential")

    password = Password(min_length=1)
    code = Code()
    credential = assertion_field()
