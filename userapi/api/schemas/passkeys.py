"""Schemas of passkeys (WebAuthn Level 3 §5.1.8 to §5.1.10)."""

from typing import Any

from marshmallow import Schema, fields

from userapi.factors.models import MAX_NAME_LENGTH

from .collection_fields import TextList
from .fields import NameText, StrictBoolean, Text
from .requests import OptionalBody, StrictSchema

MAX_TRANSPORTS = 32


class TolerantSchema(Schema):
    """Base class of what browsers and password managers write: unknown members are ignored.

    They belong to extensions and to later levels of WebAuthn.
    """

    class Meta:
        unknown = "exclude"


def _base64url(about: str, **kwargs: Any) -> Text:
    """Return a field for bytes in base64url. Its content is checked with the credential."""
    metadata = {"description": about, "example": "pN4rD1y9JxE2XMHvQVdJfg"}
    return Text(load_only=True, metadata=metadata, **kwargs)


class _Credential(TolerantSchema):
    id = _base64url("Id of the passkey.", required=True)
    rawId = _base64url("The same id.", required=True)
    type = Text(
        required=True,
        load_only=True,
        metadata={"description": "`public-key`.", "example": "public-key"},
    )


class AssertionResponse(TolerantSchema):
    """`AuthenticatorAssertionResponseJSON`."""

    clientDataJSON = _base64url("What the browser reports, as JSON.", required=True)
    authenticatorData = _base64url("What the authenticator reports.", required=True)
    signature = _base64url("Signature of both.", required=True)
    userHandle = _base64url("User handle of the passkey.", allow_none=True)


class AssertionCredential(_Credential):
    """A passkey that was used, as `PublicKeyCredential.toJSON()` returns it."""

    response = fields.Nested(AssertionResponse, required=True)


class RegistrationResponse(TolerantSchema):
    """`AuthenticatorAttestationResponseJSON`."""

    clientDataJSON = _base64url("What the browser reports, as JSON.", required=True)
    attestationObject = _base64url("The new public key.", required=True)
    transports = TextList(
        max_items=MAX_TRANSPORTS,
        max_length=64,
        allow_none=True,
        load_only=True,
        metadata={
            "description": "How a browser reaches the authenticator.",
            "example": ["internal", "hybrid"],
        },
    )


class RegistrationCredential(_Credential):
    """A new passkey, as `PublicKeyCredential.toJSON()` returns it."""

    response = fields.Nested(RegistrationResponse, required=True)


_EXAMPLE_OF_ASSERTION = {
    "id": "pN4rD1y9JxE2XMHvQVdJfg",
    "rawId": "pN4rD1y9JxE2XMHvQVdJfg",
    "type": "public-key",
    "response": {
        "clientDataJSON": "eyJ0eXBlIjoid2ViYXV0aG4uZ2V0Ii…",
        "authenticatorData": "SZYN5YgOjGh0NBcPZHZgW4_krrmihjLHmVzzuoMdl2Md…",
        "signature": "MEUCIQDNrG…",
        "userHandle": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    },
}
_EXAMPLE_OF_REGISTRATION = {
    "id": "pN4rD1y9JxE2XMHvQVdJfg",
    "rawId": "pN4rD1y9JxE2XMHvQVdJfg",
    "type": "public-key",
    "response": {
        "clientDataJSON": "eyJ0eXBlIjoid2ViYXV0aG4uY3JlYXRlIi…",
        "attestationObject": "o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YVik…",
        "transports": ["internal", "hybrid"],
    },
}


def assertion_field(**kwargs: Any) -> fields.Nested:
    """Return the member of a body that holds the passkey that was used."""
    return fields.Nested(
        AssertionCredential,
        load_only=True,
        metadata={
            "description": "`toJSON()` of the result of `navigator.credentials.get()`.",
            "example": _EXAMPLE_OF_ASSERTION,
        },
        **kwargs,
    )


class NoMembers(OptionalBody):
    """No body, or an empty object."""


class PasskeySignIn(StrictSchema):
    """The passkey to sign in with."""

    credential = assertion_field(required=True)
    remember_me = StrictBoolean(metadata={"description": "Use the longer session lifetime."})


class PasskeyAddition(StrictSchema):
    """The passkey to add."""

    credential = fields.Nested(
        RegistrationCredential,
        required=True,
        load_only=True,
        metadata={
            "description": "`toJSON()` of the result of `navigator.credentials.create()`.",
            "example": _EXAMPLE_OF_REGISTRATION,
        },
    )
    name = NameText(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        metadata={"description": "Name; default: Passkey and the device.", "example": "My phone"},
    )


class PasskeyOptions(Schema):
    """The options of a ceremony for the browser."""

    public_key = fields.Dict(
        metadata={
            "description": "For `PublicKeyCredential.parseCreationOptionsFromJSON()` or "
            "`parseRequestOptionsFromJSON()`.",
            "example": {
                "challenge": "AYw1…",
                "timeout": 300000,
                "rpId": "id.example.com",
                "allowCredentials": [],
                "userVerification": "required",
            },
        }
    )
    expires_in = fields.Integer(metadata={"description": "Seconds.", "example": 300})


class RelatedOrigins(Schema):
    """Origins of other domains that may use the passkeys (WebAuthn Level 3 §5.11)."""

    origins = fields.List(fields.String(), metadata={"example": ["https://example.org"]})
