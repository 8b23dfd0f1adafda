"""Schemas of the second step of a log-in, and of changes of second factors."""

from marshmallow import Schema, fields

from userapi.factors.models import MAX_NAME_LENGTH

from .auth import LoginResult, Tokens
from .factors import Factor
from .fields import NameText
from .proofs import Code
from .requests import OptionalBody, StrictSchema

RECOVERY_CODES_EXAMPLE = ["7t2k-9mzq-4c8w-x1bn", "v3hd-0pf6-ykrs-2eja"]


class SecondStepAnswer(LoginResult):
    """A pair of tokens and its user."""

    recovery_codes_left = fields.Integer(
        metadata={
            "example": 9,
            "description": "Unused recovery codes; present if the sign-in has used one.",
        }
    )


class FactorName(StrictSchema):
    """The new name of a factor."""

    name = NameText(
        required=True,
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        metadata={"example": "Phone"},
    )


class AppRequest(OptionalBody):
    """The name of an authenticator app."""

    name = NameText(min_length=1, max_length=MAX_NAME_LENGTH, metadata={"example": "Phone"})


class AppCode(StrictSchema):
    """A code that the new app shows."""

    code = Code(required=True)


class NewApp(Schema):
    """A secret for an authenticator app. It is a factor once a code confirms it."""

    id = fields.UUID()
    secret = fields.String(
        metadata={
            "example": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
            "description": "The secret in base32, for apps without a camera.",
        }
    )
    uri = fields.String(
        metadata={
            "example": "otpauth://totp/Example:ada?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
            "&issuer=Example&algorithm=SHA1&digits=6&period=30",
            "description": "What the QR code contains.",
        }
    )
    qr_code = fields.String(
        metadata={"example": "<svg xmlns=…", "description": "The QR code as an SVG document."}
    )
    expires_in = fields.Integer(metadata={"example": 600, "description": "Seconds."})


class AddedFactorAnswer(Tokens):
    """The new factor and a new pair of tokens; with the first factor come recovery codes."""

    factor = fields.Nested(Factor)
    recovery_codes = fields.List(
        fields.String(),
        metadata={
            "example": RECOVERY_CODES_EXAMPLE,
            "description": "Ten codes, shown only once. Present with the first factor.",
        },
    )


class NewRecoveryCodes(Schema):
    """New recovery codes."""

    recovery_codes = fields.List(
        fields.String(),
        metadata={
            "example": RECOVERY_CODES_EXAMPLE,
            "description": "Ten codes, shown only once.",
        },
    )
