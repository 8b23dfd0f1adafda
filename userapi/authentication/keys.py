"""The keys that sign access tokens, and the public ones that others verify with.

One family of algorithms at a time. Keys of an asymmetric family go through three states: `next` is
published before it signs, so that verifiers know it in time; `active` signs; `retired` still
verifies until every token that it signed has expired. A running process notices a rotation by
itself.
"""

import base64
import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from userapi.clock import Clock, rfc3339
from userapi.settings import Settings, SettingsError

STATE_FILE = "keys.json"
LEAST_RSA_BITS = 2048
RSA_BITS = 3072
LOOK_AGAIN_SECONDS = 1.0

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class KeyState(StrEnum):
    """Where a key is in its life."""

    ACTIVE = "active"
    NEXT = "next"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What the state file says of a key; the key itself is the file `<kid>.pem` beside it."""

    kid: str
    algorithm: str
    state: KeyState
    created_at: str
    since: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A parsed key. Parsing an RSA key takes a hundred times longer than signing with it."""

    kid: str
    private: Any
    public: Any
    jwk: dict[str, Any] | None


class KeyRing:
    """The keys of the configured family, as they are at this moment."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._algorithm = settings.jwt_algorithm
        self._folder = settings.keys_folder
        self._file = settings.jwt_private_key_file
        self._clock = clock
        # A retired key verifies as long as a token that it signed in its last second lives.
        self._retention = timedelta(minutes=settings.jwt_access_token_expire_minutes + 1)
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._stamp: tuple[int, int] | None = None
        self._parsed: dict[str, SigningKey] = {}
        self.generation = 0
        if self._algorithm == "HS256":
            secret = settings.jwt_secret_key.encode()
            kid = hashlib.sha256(b"kid:" + secret).hexdigest()[:16]
            self._active = SigningKey(kid, secret, secret, None)
            self._verifying = {kid: self._active}
        else:
            self._load()

    @classmethod
    def prepare(cls, settings: Settings, clock: Clock) -> list["KeyRecord"]:
        """Make the first keys, for an application that cannot start without them.

        Raises SettingsError where the configured family has no keys.
        """
        if settings.jwt_algorithm == "HS256":
            raise SettingsError(
                ["JWT_ALGORITHM: HS256 signs with JWT_SECRET_KEY and has no keys to generate"]
            )
        ring = cls.__new__(cls)
        ring._algorithm = settings.jwt_algorithm
        ring._folder = settings.keys_folder
        ring._clock = clock
        return ring.generate()

    @property
    def algorithm(self) -> str:
        """Return the one algorithm that signs and verifies."""
        return self._algorithm

    def active(self) -> SigningKey:
        """Return the key that signs now."""
        self._look_again()
        return self._active

    def verifying(self, kid: object) -> SigningKey | None:
        """Return the key with that id if it verifies now, or None."""
        self._look_again()
        return self._verifying.get(kid) if isinstance(kid, str) else None

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """Return the public keys (RFC 7517); an empty set under HS256."""
        self._look_again()
        return {"keys": [key.jwk for key in self._verifying.values() if key.jwk is not None]}

    # Administration

    def records(self) -> list[KeyRecord]:
        """Return what the state file says, the newest first."""
        return sorted(_read_state(self._folder), key=lambda r: r.created_at, reverse=True)

    def generate(self) -> list[KeyRecord]:
        """Make what is missing of an active and a next key; return what was made."""
        records = _read_state(self._folder)
        made = []
        for state in (KeyState.ACTIVE, KeyState.NEXT):
            if not any(r.state is state and r.algorithm == self._algorithm for r in records):
                made.append(self._make(state))
        self._write_state([*records, *made])
        return made

    def rotate(self) -> KeyRecord:
        """Let the next key sign, retire the active one, make a new next; return what signs now."""
        self.generate()
        now = rfc3339(self._clock.now())
        records = []
        for record in _read_state(self._folder):
            if record.algorithm == self._algorithm:
                if record.state is KeyState.ACTIVE:
                    record = replace(record, state=KeyState.RETIRED, since=now)
                elif record.state is KeyState.NEXT:
                    record = active = replace(record, state=KeyState.ACTIVE, since=now)
            records.append(record)
        self._write_state([*records, self._make(KeyState.NEXT)])
        self._looked_at = 0.0
        return active

    def _make(self, state: KeyState) -> KeyRecord:
        private = _generate(self._algorithm)
        kid = _thumbprint(_public_jwk(private, self._algorithm))
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_privately(self._folder / f"{kid}.pem", pem)
        now = rfc3339(self._clock.now())
        return KeyRecord(kid=kid, algorithm=self._algorithm, state=state, created_at=now, since=now)

    def _write_state(self, records: list[KeyRecord]) -> None:
        text = json.dumps({"keys": [asdict(record) for record in records]}, indent=2)
        _write_privately(self._folder / STATE_FILE, text.encode())

    # Loading

    def _look_again(self) -> None:
        if self._algorithm == "HS256":
            return
        now = time.monotonic()
        if now - self._looked_at < LOOK_AGAIN_SECONDS:
            return
        with self._lock:
            if now - self._looked_at >= LOOK_AGAIN_SECONDS:
                self._load()

    def _load(self) -> None:
        self._looked_at = time.monotonic()
        path = self._folder / STATE_FILE
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            stamp = None
        records = [r for r in _read_state(self._folder) if r.algorithm == self._algorithm]
        verifying: dict[str, SigningKey] = {}
        active: SigningKey | None = None
        for record in records:
            if record.state is KeyState.RETIRED and self._is_over(record):
                continue
            key = self._parse(self._folder / f"{record.kid}.pem", "JWT_KEYS_DIR")
            verifying[key.kid] = key
            if record.state is KeyState.ACTIVE:
                active = key
        if self._file is not None:
            active = self._parse(self._file, "JWT_PRIVATE_KEY_FILE")
            verifying[active.kid] = active
        if active is None:
            raise SettingsError(
                [
                    f"JWT_ALGORITHM: {self._algorithm} takes a key; run `flask keys generate`"
                    " or set JWT_PRIVATE_KEY_FILE"
                ]
            )
        self._active, self._verifying = active, verifying
        if stamp != self._stamp:
            self._stamp = stamp
            self.generation += 1

    def _is_over(self, record: KeyRecord) -> bool:
        return datetime.fromisoformat(record.since) + self._retention < self._clock.now()

    def _parse(self, path: Path, variable: str) -> SigningKey:
        known = self._parsed.get(str(path))
        if known is None:
            known = self._parsed[str(path)] = _parse_pem(path, self._algorithm, variable)
        return known


def _parse_pem(path: Path, algorithm: str, variable: str) -> SigningKey:
    fault = SettingsError([f"{variable}: takes an unencrypted PEM private key for {algorithm}"])
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise fault from exc
    fits = {
        "ES256": isinstance(private, ec.EllipticCurvePrivateKey)
        and isinstance(private.curve, ec.SECP256R1),
        "EdDSA": isinstance(private, ed25519.Ed25519PrivateKey),
        "RS256": isinstance(private, rsa.RSAPrivateKey) and private.key_size >= LEAST_RSA_BITS,
    }[algorithm]
    if not fits or not isinstance(private, PrivateKey):
        raise fault
    jwk = _public_jwk(private, algorithm)
    kid = _thumbprint(jwk)
    return SigningKey(kid, private, private.public_key(), {**jwk, "kid": kid, "use": "sig"})


def _generate(algorithm: str) -> PrivateKey:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    raise SettingsError([f"JWT_ALGORITHM: {algorithm} has no keys to generate"])


def _public_jwk(private: PrivateKey, algorithm: str) -> dict[str, Any]:
    public = private.public_key()
    text: str
    if isinstance(public, ec.EllipticCurvePublicKey):
        text = ECAlgorithm.to_jwk(public)
    elif isinstance(public, ed25519.Ed25519PublicKey):
        text = OKPAlgorithm.to_jwk(public)
    else:
        text = RSAAlgorithm.to_jwk(public)
    jwk: dict[str, Any] = json.loads(text)
    jwk.pop("key_ops", None)
    return {**jwk, "alg": algorithm}


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return the JWK thumbprint, SHA-256 over the required members in order (RFC 7638)."""
    required = {
        "EC": ("crv", "kty", "x", "y"),
        "OKP": ("crv", "kty", "x"),
        "RSA": ("e", "kty", "n"),
    }
    members = {name: jwk[name] for name in required[jwk["kty"]]}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()


def _read_state(folder: Path) -> list[KeyRecord]:
    try:
        document = json.loads((folder / STATE_FILE).read_text("utf-8"))
        return [
            KeyRecord(**{**record, "state": KeyState(record["state"])})
            for record in document["keys"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsError([f"JWT_KEYS_DIR: its {STATE_FILE} cannot be read"]) from exc


def _write_privately(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
