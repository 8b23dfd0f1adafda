"""A software authenticator and its browser: passkeys as JSON, with anything wrong on demand.

It follows WebAuthn Level 3 §6 (authenticator data, CTAP2 COSE keys) and §5.8.1 (client data).
"""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ES256, EDDSA, RS256 = -7, -8, -257
UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
ORIGIN = "http://localhost:8000"

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
Json = dict[str, Any]


def base64url(value: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(slots=True, kw_only=True)
class Wrong:
    """What is wrong with one response; the default is nothing.

    `flags` are cleared, `extra_flags` set. `client_data` replaces members; None removes one.
    """

    flags: int = 0
    extra_flags: int = 0
    counter: int | None = None
    rp_id: str | None = None
    client_data: Mapping[str, Any] = field(default_factory=dict)
    signature: bytes | None = None
    user_handle: bytes | None = None
    without_user_handle: bool = False
    format: str = "none"
    statement: Mapping[str, Any] = field(default_factory=dict)
    public_key: Any = None
    attested_id: bytes | None = None


@dataclass(slots=True, kw_only=True)
class SoftPasskey:
    """A passkey in the authenticator."""

    id: bytes
    key: PrivateKey
    rp_id: str
    user_handle: bytes
    counter: int = 0


NOTHING_WRONG = Wrong()


@dataclass(slots=True, kw_only=True)
class Authenticator:
    """An authenticator with user verification in a browser at `origin`.

    `synced` passkeys are eligible for backup (BE) and backed up (BS), and always count 0.
    """

    origin: str = ORIGIN
    algorithm: int = ES256
    synced: bool = True
    passkeys: list[SoftPasskey] = field(default_factory=list)

    def create(self, options: Json, wrong: Wrong = NOTHING_WRONG) -> Json:
        """Return the JSON of a new credential for creation options."""
        passkey = SoftPasskey(
            id=secrets.token_bytes(32),
            key=_new_key(self.algorithm),
            rp_id=options["rp"]["id"],
            user_handle=from_base64url(options["user"]["id"]),
            counter=0 if self.synced else 1,
        )
        self.passkeys.append(passkey)
        client_data = self._client_data("webauthn.create", options["challenge"], wrong)
        public_key = wrong.public_key or cose_key(passkey.key)
        attested_id = passkey.id if wrong.attested_id is None else wrong.attested_id
        attested = bytes(16) + len(attested_id).to_bytes(2, "big") + attested_id
        data = self._authenticator_data(passkey, wrong, AT) + attested + cbor2.dumps(public_key)
        attestation = cbor2.dumps(
            {"fmt": wrong.format, "attStmt": dict(wrong.statement), "authData": data}
        )
        return {
            **_public_key_credential(passkey),
            "response": {
                "clientDataJSON": base64url(client_data),
                "attestationObject": base64url(attestation),
                "authenticatorData": base64url(data),
                "publicKeyAlgorithm": self.algorithm,
                "transports": ["internal", "hybrid"],
            },
        }

    def get(
        self, options: Json, wrong: Wrong = NOTHING_WRONG, *, passkey: SoftPasskey | None = None
    ) -> Json:
        """Return the JSON of an assertion for request options, with the latest passkey."""
        passkey = passkey or self._chosen(options)
        if not self.synced:
            passkey.counter += 1
        client_data = self._client_data("webauthn.get", options["challenge"], wrong)
        data = self._authenticator_data(passkey, wrong)
        signature = sign(passkey.key, data + sha256(client_data).digest())
        handle = passkey.user_handle if wrong.user_handle is None else wrong.user_handle
        response = {
            "clientDataJSON": base64url(client_data),
            "authenticatorData": base64url(data),
            "signature": base64url(wrong.signature or signature),
            "userHandle": base64url(handle),
        }
        if wrong.without_user_handle:
            del response["userHandle"]
        return {**_public_key_credential(passkey), "response": response}

    def _chosen(self, options: Json) -> SoftPasskey:
        allowed = {entry["id"] for entry in options["allowCredentials"]}
        return next(
            passkey
            for passkey in reversed(self.passkeys)
            if not allowed or base64url(passkey.id) in allowed
        )

    def _client_data(self, type_: str, challenge: str, wrong: Wrong) -> bytes:
        members = {
            "type": type_,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": False,
            **wrong.client_data,
        }
        return json.dumps({n: v for n, v in members.items() if v is not None}).encode()

    def _authenticator_data(self, passkey: SoftPasskey, wrong: Wrong, flags: int = 0) -> bytes:
        flags |= UP | UV | (BE | BS if self.synced else 0)
        flags = (flags & ~wrong.flags) | wrong.extra_flags
        counter = passkey.counter if wrong.counter is None else wrong.counter
        rp_id = wrong.rp_id or passkey.rp_id
        return sha256(rp_id.encode()).digest() + bytes([flags]) + counter.to_bytes(4, "big")


def cose_key(key: PrivateKey) -> dict[int, Any]:
    """Return the public key as COSE (RFC 9052)."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {1: 1, 3: EDDSA, -1: 6, -2: public.public_bytes_raw()}
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        size = (public.key_size + 7) // 8
        return {1: 3, 3: RS256, -1: numbers.n.to_bytes(size, "big"), -2: b"\x01\x00\x01"}
    point = public.public_numbers()
    return {
        1: 2,
        3: ES256,
        -1: 1,
        -2: point.x.to_bytes(32, "big"),
        -3: point.y.to_bytes(32, "big"),
    }


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Return the signature of an authenticator (WebAuthn Level 3 §6.5.5)."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    return key.sign(data, ec.ECDSA(SHA256()))


def _new_key(algorithm: int) -> PrivateKey:
    if algorithm == EDDSA:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == RS256:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _public_key_credential(passkey: SoftPasskey) -> Json:
    return {
        "id": base64url(passkey.id),
        "rawId": base64url(passkey.id),
        "type": "public-key",
        "authenticatorAttachment": "platform",
        "clientExtensionResults": {},
    }
