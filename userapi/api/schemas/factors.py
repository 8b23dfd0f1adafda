"""Schemas of the second factors of a user."""

from marshmallow import Schema, fields, validate

from userapi.factors.methods import FactorType, Method

from .fields import Moment


class Factor(Schema):
    """A second factor."""

    id = fields.UUID()
    type = fields.String(
        validate=validate.OneOf([str(type_) for type_ in FactorType]), metadata={"example": "totp"}
    )
    name = fields.String(metadata={"example": "Phone"})
    created_at = Moment()
    last_used_at = Moment(allow_none=True)
    credential_id = fields.String(
        metadata={
            "example": "2wWJc0kYRUyGPy7Rkdw8XQ",
            "description": "Of a passkey: its id, in base64url. Only its user sees it.",
        }
    )
    backed_up = fields.Boolean(
        metadata={"description": "Of a passkey: whether it is synchronized to other devices."}
    )
    transports = fields.List(
        fields.String(),
        metadata={
            "example": ["internal", "hybrid"],
            "description": "Of a passkey: how a browser reaches it.",
        },
    )


class WebAuthnAccount(Schema):
    """What a browser needs to remove passkeys that the account no longer has."""

    rp_id = fields.String(metadata={"example": "example.com"})
    user_id = fields.String(
        metadata={
            "example": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "description": "The user handle that passkeys contain, in base64url.",
        }
    )


class Mfa(Schema):
    """Two-step sign-in of a user."""

    enabled = fields.Boolean()
    required = fields.Boolean(
        metadata={"description": "Whether a role of the user demands a second factor."}
    )
    methods = fields.List(
        fields.String(validate=validate.OneOf([str(method) for method in Method])),
        metadata={"example": ["totp", "recovery_code"]},
    )
    factors = fields.List(fields.Nested(Factor))
    recovery_codes_left = fields.Integer(metadata={"example": 10})
    webauthn = fields.Nested(WebAuthnAccount, allow_none=True)
