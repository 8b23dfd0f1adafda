"""The keys of a process: they sign access tokens, and other services verify with the public ones.

There is one algorithm at a time. An asymmetric key has three states: `next` is published before it
signs, so that verifiers have it in time; `active` signs; `retired` verifies until every token that
it signed has expired. A running process reloads the keys after a rotation.
"""

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from userapi.authentication.key_files import Jwk, SigningKey, parse_keys
from userapi.authentication.key_folder import KeyFolder, KeyState
from userapi.errors import Unavailable
from userapi.settings import SettingsError

RELOAD_SECONDS = 1.0
# An unknown id may be the key of a rotation a moment ago; the interval limits the cost.
RELOAD_FOR_UNKNOWN_SECONDS = 0.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys as they were loaded; replaced as a whole, so that no thread sees half a rotation."""

    active: SigningKey | None
    verifying: dict[str, SigningKey]


class KeyRing:
    """The current keys of the configured algorithm.

    It can be built without any key, because `flask keys generate` needs an application; then it
    signs and verifies nothing. `require_active` checks this before the service starts.
    """

    def __init__(
        self,
        *,
        algorithm: str,
        secret: str,
        file: Path | None,
        folder: KeyFolder,
        generate_missing: bool,
    ) -> None:
        """Load the keys. Raises SettingsError for files without keys of the algorithm.

        HS256 uses `secret`, every other algorithm `file` and `folder`.
        """
        self._algorithm = algorithm
        self._file = file
        self._lock = threading.Lock()
        self._loaded_at = time.monotonic()
        self._generation = 0
        self._parsed: dict[tuple[Path, int, int], list[SigningKey]] = {}
        self._folder: KeyFolder | None = None
        if algorithm == "HS256":
            self._keys = _symmetric_keys(secret.encode())
        else:
            self._folder = folder
            self._keys = self._read(folder)
            if self._keys.active is None and generate_missing:
                # The folder is locked meanwhile: concurrent processes end up with the same keys.
                folder.generate()
                self._keys = self._read(folder)

    @property
    def algorithm(self) -> str:
        """Return the one algorithm that signs and verifies (RFC 8725 §3.1)."""
        return self._algorithm

    @property
    def generation(self) -> int:
        """Return a number that increases with each change of the keys, to invalidate caches."""
        self._reload_after(RELOAD_SECONDS)
        return self._generation

    def active(self) -> SigningKey:
        """Return the key that signs. Raises Unavailable if there is none."""
        self._reload_after(RELOAD_SECONDS)
        active = self._keys.active
        if active is None:
            log.error("keys.none_active", algorithm=self._algorithm)
            raise Unavailable()
        return active

    def require_active(self) -> None:
        """Raise SettingsError if there is no key to sign with."""
        self._reload_after(RELOAD_SECONDS)
        if self._keys.active is None:
            raise SettingsError(
                [
                    f"JWT_ALGORITHM: {self._algorithm} needs a key; run `flask keys generate`,"
                    " set JWT_PRIVATE_KEY_FILE, or set JWT_SECRET_KEY and JWT_ALGORITHM=HS256"
                ]
            )

    def verifying(self, kid: object) -> SigningKey | None:
        """Return the key with this id if it verifies now, or None. The id is not used as a path."""
        if not isinstance(kid, str):
            return None
        self._reload_after(RELOAD_SECONDS)
        if kid not in self._keys.verifying:
            self._reload_after(RELOAD_FOR_UNKNOWN_SECONDS)
        return self._keys.verifying.get(kid)

    def jwks(self) -> dict[str, list[Jwk]]:
        """Return the public keys (RFC 7517 §5); an empty set under HS256."""
        self._reload_after(RELOAD_SECONDS)
        keys = self._keys.verifying.values()
        return {"keys": [dict(key.jwk) for key in keys if key.jwk is not None]}

    def _reload_after(self, seconds: float) -> None:
        """Reload the keys if they were loaded longer ago; keep the former ones on an error."""
        if self._folder is None or time.monotonic() - self._loaded_at < seconds:
            return
        with self._lock:
            if time.monotonic() - self._loaded_at < seconds:
                return
            self._loaded_at = time.monotonic()
            try:
                keys = self._read(self._folder)
            except SettingsError as exc:
                # Partly copied files or an unmounted volume: the keys loaded before still work.
                log.warning("keys.unreadable", problems=exc.problems)
                return
            if keys.active is None and self._keys.active is not None:
                log.warning("keys.gone", algorithm=self._algorithm)
            elif keys != self._keys:
                # In this order: a thread that reads the new number finds the new keys.
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
        """Return the keys of a file; an unchanged file is not parsed again."""
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


def _symmetric_keys(secret: bytes) -> _Keys:
    kid = hashlib.sha256(b"kid:" + secret).hexdigest()[:16]
    key = SigningKey(kid, secret, secret, None)
    return _Keys(key, {kid: key})
