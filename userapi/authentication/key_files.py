"""Signing keys as PEM files and as JWKs. The id of a key is its thumbprint (RFC 7638)."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from userapi.settings import SettingsError

MIN_RSA_BITS = 2048
RSA_BITS = 3072
# Other blocks are skipped: `openssl ecparam -genkey` writes EC PARAMETERS before the key.
PEM_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z ]*(?:PRIVATE|PUBLIC) KEY)-----.*?-----END (?P=label)-----",
    re.DOTALL,
)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
Jwk = dict[str, str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A parsed key; `private` is None if the key only verifies.

    Parsing an RSA key takes a hundred times longer than signing with it.
    """

    kid: str
    private: PrivateKey | bytes | None
    public: PublicKey | bytes
    jwk: Jwk | None


def parse_keys(path: Path, *, algorithm: str, variable: str) -> list[SigningKey]:
    """Return the keys of a PEM file, in order; the first is a private key.

    Raises SettingsError about `variable` for a file without one, or with keys of another algorithm.
    """
    kind = {"ES256": "P-256", "EdDSA": "Ed25519", "RS256": f"RSA, {MIN_RSA_BITS} bits or more"}
    fault = SettingsError(
        [f"{variable}: must be an unencrypted PEM private key for {algorithm} ({kind[algorithm]})"]
    )
    try:
        blocks = list(PEM_BLOCK.finditer(path.read_bytes()))
        parsed = [_parse_block(block[0], block["label"], algorithm) for block in blocks]
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise fault from exc
    if not parsed or parsed[0].private is None:
        raise fault
    return parsed


def _parse_block(pem: bytes, label: bytes, algorithm: str) -> SigningKey:
    private: PrivateKey | None = None
    public: PublicKeyTypes
    if label.endswith(b"PRIVATE KEY"):
        found = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(found, PrivateKey):
            raise ValueError("key of another algorithm")
        private, public = found, found.public_key()
    else:
        public = serialization.load_pem_public_key(pem)
    if not isinstance(public, PublicKey) or not _fits(public, algorithm):
        raise ValueError("key of another algorithm")
    jwk = public_jwk(public, algorithm)
    kid = thumbprint(jwk)
    return SigningKey(kid, private, public, {**jwk, "kid": kid, "use": "sig"})


def _fits(public: PublicKey, algorithm: str) -> bool:
    if isinstance(public, ec.EllipticCurvePublicKey):
        return algorithm == "ES256" and isinstance(public.curve, ec.SECP256R1)
    if isinstance(public, rsa.RSAPublicKey):
        return algorithm == "RS256" and public.key_size >= MIN_RSA_BITS
    return algorithm == "EdDSA"


def generate_key(algorithm: str) -> PrivateKey:
    """Return a new key. Raises SettingsError for HS256, which signs with JWT_SECRET_KEY."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    raise SettingsError([f"JWT_ALGORITHM: {algorithm} has no keys to generate"])


def pem_of(private: PrivateKey) -> bytes:
    """Return a private key as PEM."""
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_jwk(public: PublicKey, algorithm: str) -> Jwk:
    """Return a public key as a JWK (RFC 7517, RFC 8037) that names its one algorithm."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        text = ECAlgorithm.to_jwk(public)
    elif isinstance(public, ed25519.Ed25519PublicKey):
        text = OKPAlgorithm.to_jwk(public)
    else:
        text = RSAAlgorithm.to_jwk(public)
    jwk: Jwk = json.loads(text)
    jwk.pop("key_ops", None)
    return {**jwk, "alg": algorithm}


def thumbprint(jwk: Jwk) -> str:
    """Return the JWK thumbprint, SHA-256 over the required members in order (RFC 7638 §3)."""
    required = {
        "EC": ("crv", "kty", "x", "y"),
        "OKP": ("crv", "kty", "x"),
        "RSA": ("e", "kty", "n"),
    }
    members = {name: jwk[name] for name in required[jwk["kty"]]}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
