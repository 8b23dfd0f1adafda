"""The keys that sign access tokens, and the public ones that others verify with.

One family of algorithms at a time. Keys of an asymmetric family go through three states: `next` is
published before it signs, so that verifiers know it in time; `active` signs; `retired` still
verifies until every token that it signed has expired. A running process notices a rotation by
itself.
"""

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from userapi.authentication.key_files import (
    Jwk,
    KeyFolder,
    KeyState,
    SigningKey,
    parse_keys,
)
from userapi.clock import Clock
from userapi.errors import Unavailable
from userapi.settings import Settings, SettingsError

LOOK_AGAIN_SECONDS = 1.0
# An unknown id may be the key of a rotation that happened just now; who sends many finds a limit.
LOOK_FOR_UNKNOWN_SECONDS = 0.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys at one moment; replaced as a whole, so that no thread sees half of a rotation."""

    active: SigningKey | None
    verifying: dict[str, SigningKey]


class KeyRing:
    """The keys of the configured family, as they are at this moment.

    Without any key it can be built, because `flask keys generate` needs an application, but signs
    and verifies nothing; `require_active` is asked before serving.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Read the keys. Raises SettingsError for files that are no keys of the family."""
        self._algorithm = settings.jwt_algorithm
        self._file = settings.jwt_private_key_file
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._generation = 0
        self._parsed: dict[tuple[Path, int, int], list[SigningKey]] = {}
        self._folder: KeyFolder | None = None
        if self._algorithm == "HS256":
            secret = settings.jwt_secret_key.encode()
            kid = hashlib.sha256(b"kid:" + secret).hexdigest()[:16]
            key = SigningKey(kid, secret, secret, None)
            self._keys = _Keys(key, {kid: key})
        else:
            self._folder = KeyFolder(settings, clock)
            self._keys = self._read(self._folder)
            if self._keys.active is None and settings.creates_signing_keys:
                # Processes that start at once agree: the folder is locked while keys are made.
                self._folder.generate()
                self._keys = self._read(self._folder)

    @property
    def algorithm(self) -> str:
        """Return the one algorithm that signs and verifies (RFC 8725 §3.1)."""
        return self._algorithm

    @property
    def generation(self) -> int:
        """Return a number that changes with the keys: what was verified before is open again."""
        self._look_again(LOOK_AGAIN_SECONDS)
        return self._generation

    def active(self) -> SigningKey:
        """Return the key that signs now. Raises Unavailable where there is none."""
        self._look_again(LOOK_AGAIN_SECONDS)
        active = self._keys.active
        if active is None:
            log.error("keys.none_active", algorithm=self._algorithm)
            raise Unavailable()
        return active

    def require_active(self) -> None:
        """Check before serving that there is a key to sign with. Raises SettingsError."""
        self._look_again(LOOK_AGAIN_SECONDS)
        if self._keys.active is None:
            raise SettingsError(
                [
                    f"JWT_ALGORITHM: {self._algorithm} needs a key; run `flask keys generate`,"
                    " set JWT_PRIVATE_KEY_FILE, or set JWT_SECRET_KEY and JWT_ALGORITHM=HS256"
                ]
            )

    def verifying(self, kid: object) -> SigningKey | None:
        """Return the key with that id if it verifies now, or None. An id is never a path."""
        if not isinstance(kid, str):
            return None
        self._look_again(LOOK_AGAIN_SECONDS)
        if kid not in self._keys.verifying:
            self._look_again(LOOK_FOR_UNKNOWN_SECONDS)
        return self._keys.verifying.get(kid)

    def jwks(self) -> dict[str, list[Jwk]]:
        """Return the public keys (RFC 7517 §5); an empty set under HS256."""
        self._look_again(LOOK_AGAIN_SECONDS)
        keys = self._keys.verifying.values()
        return {"keys": [dict(key.jwk) for key in keys if key.jwk is not None]}

    def _look_again(self, seconds: float) -> None:
        """Read the keys if the last look is so long ago; a fault leaves the former in force."""
        if self._folder is None or time.monotonic() - self._looked_at < seconds:
            return
        with self._lock:
            if time.monotonic() - self._looked_at < seconds:
                return
            self._looked_at = time.monotonic()
            try:
                keys = self._read(self._folder)
            except SettingsError as exc:
                # Half-copied files, or a volume that is away: better the keys of a second ago.
                log.warning("keys.unreadable", problems=exc.problems)
                return
            if keys.active is None and self._keys.active is not None:
                log.warning("keys.gone", algorithm=self._algorithm)
            elif keys != self._keys:
                # First the keys, then the number: who sees the number finds the keys.
                self._keys = keys
                self._generation += 1

    def _read(self, folder: KeyFolder) -> _Keys:
        active: SigningKey | None = None
        verifying: dict[str, SigningKey] = {}
        parsed: dict[tuple[Path, int, int], list[SigningKey]] = {}
        for record in folder.usable():
            key, *_ = self._parse(folder.path(record), "JWT_KEYS_DIR", parsed)
            verifying[key.kid] = key
            if record.state is KeyState.ACTIVE:
                active = key
        if self._file is not None:
            keys = self._parse(self._file, "JWT_PRIVATE_KEY_FILE", parsed)
            active = keys[0]
            verifying |= {key.kid: key for key in keys}
        self._parsed = parsed
        return _Keys(active, verifying)

    def _parse(
        self, path: Path, variable: str, parsed: dict[tuple[Path, int, int], list[SigningKey]]
    ) -> list[SigningKey]:
        """Return the keys of a file; one that has not changed is not parsed again."""
        try:
            status = path.stat()
        except OSError as exc:
            raise SettingsError([f"{variable}: {path.name} cannot be read"]) from exc
        stamp = (path, status.st_mtime_ns, status.st_ino)
        keys = self._parsed.get(stamp)
        if keys is None:
            keys = parse_keys(path, algorithm=self._algorithm, variable=variable)
        parsed[stamp] = keys
        return keys
