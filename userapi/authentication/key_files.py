"""Keys at rest: the PEM files, the folder that `flask keys` works on, and keys as JWKs.

The folder holds one `<kid>.pem` for each key and `keys.json`, which says what each is for. The id
of a key is its thumbprint (RFC 7638), so it says nothing and never changes. What a process does
with the keys is in `userapi.authentication.keys`.
"""

import base64
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from userapi.clock import Clock, rfc3339
from userapi.errors import NotFound
from userapi.private_files import make_folder
from userapi.settings import Settings, SettingsError

STATE_FILE = "keys.json"
MIN_RSA_BITS = 2048
RSA_BITS = 3072
# `openssl ecparam -genkey` writes EC PARAMETERS before the key: other blocks are passed over.
PEM_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z ]*(?:PRIVATE|PUBLIC) KEY)-----.*?-----END (?P=label)-----",
    re.DOTALL,
)
THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
Jwk = dict[str, str]


class KeyState(StrEnum):
    """Where a key is in its life."""

    ACTIVE = "active"
    NEXT = "next"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A parsed key; `private` is None where it only verifies.

    Parsing an RSA key takes a hundred times longer than signing with it.
    """

    kid: str
    private: PrivateKey | bytes | None
    public: PublicKey | bytes
    jwk: Jwk | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What the state file says of a key; the key itself is the file `<kid>.pem` beside it."""

    kid: str
    algorithm: str
    state: KeyState
    created_at: str
    since: str
    verifies_until: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no record: the id becomes part of a path. Raises ValueError."""
        if not THUMBPRINT.fullmatch(self.kid):
            raise ValueError("the id of a key is its thumbprint")
        for moment in (self.created_at, self.since, self.verifies_until):
            if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError("a moment takes its offset from UTC")


class KeyNotFound(NotFound):
    """The folder holds no key with that id."""

    title = "This key does not exist. `flask keys list` shows the existing keys."


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A key that was revoked, and the one that signs in its place where it was the active one."""

    revoked: KeyRecord
    signs_now: KeyRecord | None = None


class KeyFolder:
    """The keys of the configured family in JWT_KEYS_DIR, and their way through the states."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._algorithm = settings.jwt_algorithm
        self._folder = settings.keys_folder
        self._signs = settings.jwt_private_key_file is None
        self._clock = clock
        # A token that is signed in the last moment, and the leeway that verifiers allow.
        self._retention = timedelta(minutes=settings.jwt_access_token_expire_minutes + 1)

    def path(self, record: KeyRecord) -> Path:
        """Return the file of a key."""
        return self._folder / f"{record.kid}.pem"

    def records(self) -> list[KeyRecord]:
        """Return what is known of every key, the newest first. Raises SettingsError."""
        return sorted(_read_state(self._folder), key=lambda r: r.created_at, reverse=True)

    def usable(self) -> list[KeyRecord]:
        """Return the keys of the configured family that sign or verify now."""
        records = [r for r in self.records() if r.algorithm == self._algorithm]
        return [record for record in records if not self._is_over(record)]

    def generate(self) -> list[KeyRecord]:
        """Make what is missing of an active and a next key; return what was made."""
        with self._alone():
            records = _read_state(self._folder)
            made = self._make_missing(records)
            if made:
                self._write_state([*records, *made])
        return made

    def rotate(self) -> KeyRecord:
        """Let the next key sign, retire the active one, make a new next; return what signs now.

        Keys whose time to verify is over are deleted.
        """
        with self._alone():
            former = _read_state(self._folder)
            former += self._make_missing(former)
            now = self._clock.now()
            until = rfc3339(now + self._retention)
            records = []
            for record in former:
                if record.algorithm == self._algorithm:
                    if record.state is KeyState.ACTIVE:
                        record = replace(
                            record,
                            state=KeyState.RETIRED,
                            since=rfc3339(now),
                            verifies_until=until,
                        )
                    elif record.state is KeyState.NEXT:
                        record = replace(record, state=KeyState.ACTIVE, since=rfc3339(now))
                        active = record
                records.append(record)
            kept = [record for record in records if not self._is_over(record)]
            self._write_state([*kept, self._make(KeyState.NEXT)])
            for record in records:
                if record not in kept:
                    self.path(record).unlink(missing_ok=True)
        return active

    def revoke(self, kid: str) -> Revocation:
        """Delete a key for good: from now on nothing verifies with it. Raises KeyNotFound.

        Where it was the active key, the next one signs; a new next key is made. The state is
        written before the file is deleted: after a crash in between, no process uses the key, and
        the same command deletes the file.
        """
        with self._alone():
            former = _read_state(self._folder)
            record = next((r for r in former if r.kid == kid), None)
            if record is None:
                self._delete_stray_file(kid)
                raise KeyNotFound()
            kept = [r for r in former if r is not record]
            signs_now: KeyRecord | None = None
            if self._signs and record.algorithm == self._algorithm:
                kept, signs_now = self._succeeded(record, kept)
            self._write_state(kept)
            self.path(record).unlink(missing_ok=True)
        return Revocation(revoked=record, signs_now=signs_now)

    def _succeeded(
        self, revoked: KeyRecord, kept: list[KeyRecord]
    ) -> tuple[list[KeyRecord], KeyRecord | None]:
        """Return the keys that are left with what is missing made, and the new active one."""
        if revoked.state is KeyState.RETIRED:
            return kept, None
        if revoked.state is KeyState.NEXT:
            return [*kept, *self._make_missing(kept)], None
        now = rfc3339(self._clock.now())
        is_next = [r.algorithm == self._algorithm and r.state is KeyState.NEXT for r in kept]
        kept = [
            replace(r, state=KeyState.ACTIVE, since=now) if follows else r
            for r, follows in zip(kept, is_next, strict=True)
        ]
        kept += self._make_missing(kept)
        active = next(
            r for r in kept if r.algorithm == self._algorithm and r.state is KeyState.ACTIVE
        )
        return kept, active

    def _delete_stray_file(self, kid: str) -> None:
        """Delete the file of a key that the state does not name any more."""
        if THUMBPRINT.fullmatch(kid):
            (self._folder / f"{kid}.pem").unlink(missing_ok=True)

    def _is_over(self, record: KeyRecord) -> bool:
        if record.state is not KeyState.RETIRED:
            return False
        if record.verifies_until is not None:
            return datetime.fromisoformat(record.verifies_until) < self._clock.now()
        return datetime.fromisoformat(record.since) + self._retention < self._clock.now()

    def _make_missing(self, records: list[KeyRecord]) -> list[KeyRecord]:
        present = {record.state for record in records if record.algorithm == self._algorithm}
        wanted = (KeyState.ACTIVE, KeyState.NEXT)
        return [self._make(state) for state in wanted if state not in present]

    def _make(self, state: KeyState) -> KeyRecord:
        private = _generate(self._algorithm)
        now = rfc3339(self._clock.now())
        record = KeyRecord(
            kid=thumbprint(public_jwk(private.public_key(), self._algorithm)),
            algorithm=self._algorithm,
            state=state,
            created_at=now,
            since=now,
        )
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_privately(self.path(record), pem)
        return record

    def _write_state(self, records: list[KeyRecord]) -> None:
        text = json.dumps({"keys": [asdict(record) for record in records]}, indent=2)
        _write_privately(self._folder / STATE_FILE, text.encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the folder while no other command does: a lost update would lose a key."""
        try:
            make_folder(self._folder)
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise SettingsError(
                [f"JWT_KEYS_DIR: must be a writable folder ({exc.strerror})"]
            ) from exc


def parse_keys(path: Path, *, algorithm: str, variable: str) -> list[SigningKey]:
    """Return the keys of a PEM file, in order; the first is a private one.

    Raises SettingsError about `variable` for anything that is no key of the algorithm.
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
            raise ValueError("a key of another family")
        private, public = found, found.public_key()
    else:
        public = serialization.load_pem_public_key(pem)
    if not isinstance(public, PublicKey) or not _fits(public, algorithm):
        raise ValueError("a key of another family")
    jwk = public_jwk(public, algorithm)
    kid = thumbprint(jwk)
    return SigningKey(kid, private, public, {**jwk, "kid": kid, "use": "sig"})


def _fits(public: PublicKey, algorithm: str) -> bool:
    if isinstance(public, ec.EllipticCurvePublicKey):
        return algorithm == "ES256" and isinstance(public.curve, ec.SECP256R1)
    if isinstance(public, rsa.RSAPublicKey):
        return algorithm == "RS256" and public.key_size >= MIN_RSA_BITS
    return algorithm == "EdDSA"


def _generate(algorithm: str) -> PrivateKey:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    raise SettingsError([f"JWT_ALGORITHM: {algorithm} has no keys to generate"])


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
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    # The new name is on the disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
