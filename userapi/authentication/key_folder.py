"""The key folder, which `flask keys` manages: one `<kid>.pem` for each key, and `keys.json`.

The state file records the purpose of each key. The id of a key is its thumbprint, so it never
changes. `userapi.authentication.keys` loads the keys into a process.
"""

import fcntl
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

from userapi.authentication.key_files import generate_key, pem_of, public_jwk, thumbprint
from userapi.clock import Clock, rfc3339
from userapi.errors import NotFound
from userapi.private_files import make_folder
from userapi.settings import SettingsError

STATE_FILE = "keys.json"
THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class KeyState(StrEnum):
    """The states of a key, in the order `next`, `active`, `retired`."""

    ACTIVE = "active"
    NEXT = "next"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """The entry of a key in the state file; `<kid>.pem` contains the key itself."""

    kid: str
    algorithm: str
    state: KeyState
    created_at: str
    since: str
    verifies_until: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a malformed entry: the id is a part of a path."""
        if not THUMBPRINT.fullmatch(self.kid):
            raise ValueError("the id is not a thumbprint")
        for moment in (self.created_at, self.since, self.verifies_until):
            if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError("a time has no offset from UTC")


class KeyNotFound(NotFound):
    """The folder holds no key with that id."""

    title = "This key does not exist. `flask keys list` shows the existing keys."


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A revoked key, and the key that replaces it if the revoked one was active."""

    revoked: KeyRecord
    signs_now: KeyRecord | None = None


class KeyFolder:
    """The keys of one algorithm in JWT_KEYS_DIR, and the changes of their states."""

    def __init__(
        self,
        folder: Path,
        *,
        algorithm: str,
        token_lifetime: timedelta,
        clock: Clock,
        signs: bool = True,
    ) -> None:
        """Manage keys in `folder`. With `signs` False, JWT_PRIVATE_KEY_FILE signs instead."""
        self._folder = folder
        self._algorithm = algorithm
        self._signs = signs
        self._clock = clock
        # The lifetime of a token that is signed just before the rotation, and a margin for leeway.
        self._retention = token_lifetime + timedelta(minutes=1)

    def path(self, record: KeyRecord) -> Path:
        """Return the file of a key."""
        return self._folder / f"{record.kid}.pem"

    def records(self) -> list[KeyRecord]:
        """Return the entries of all keys, the newest first. Raises SettingsError."""
        return sorted(_read_state(self._folder), key=lambda r: r.created_at, reverse=True)

    def usable(self) -> list[KeyRecord]:
        """Return the keys of the algorithm that sign or verify now."""
        records = [r for r in self.records() if r.algorithm == self._algorithm]
        return [record for record in records if not self._has_expired(record)]

    def generate(self) -> list[KeyRecord]:
        """Generate the active and the next key if they are missing; return the new ones."""
        with self._locked():
            records = _read_state(self._folder)
            generated = self._generate_missing(records)
            if generated:
                self._write_state([*records, *generated])
        return generated

    def rotate(self) -> KeyRecord:
        """Activate the next key, retire the active one, generate another next; return the active.

        Deletes retired keys that no longer verify.
        """
        with self._locked():
            former = _read_state(self._folder)
            former += self._generate_missing(former)
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
            kept = [record for record in records if not self._has_expired(record)]
            self._write_state([*kept, self._generate(KeyState.NEXT)])
            for record in records:
                if record not in kept:
                    self.path(record).unlink(missing_ok=True)
        return active

    def revoke(self, kid: str) -> Revocation:
        """Delete a key; nothing verifies with it from now on. Raises KeyNotFound.

        If it was the active key, the next one signs and another next one is generated. The state is
        written before the file is deleted: after a crash in between, no process uses the key, and
        the same command deletes the file.
        """
        with self._locked():
            former = _read_state(self._folder)
            record = next((r for r in former if r.kid == kid), None)
            if record is None:
                self._delete_stray_file(kid)
                raise KeyNotFound()
            kept = [r for r in former if r is not record]
            signs_now: KeyRecord | None = None
            if self._signs and record.algorithm == self._algorithm:
                kept, signs_now = self._replace(record, kept)
            self._write_state(kept)
            self.path(record).unlink(missing_ok=True)
        return Revocation(revoked=record, signs_now=signs_now)

    def _replace(
        self, revoked: KeyRecord, kept: list[KeyRecord]
    ) -> tuple[list[KeyRecord], KeyRecord | None]:
        """Return the remaining keys with replacements, and the active one if it has changed."""
        if revoked.state is KeyState.RETIRED:
            return kept, None
        if revoked.state is KeyState.NEXT:
            return [*kept, *self._generate_missing(kept)], None
        now = rfc3339(self._clock.now())
        is_next = [r.algorithm == self._algorithm and r.state is KeyState.NEXT for r in kept]
        kept = [
            replace(r, state=KeyState.ACTIVE, since=now) if activated else r
            for r, activated in zip(kept, is_next, strict=True)
        ]
        kept += self._generate_missing(kept)
        active = next(
            r for r in kept if r.algorithm == self._algorithm and r.state is KeyState.ACTIVE
        )
        return kept, active

    def _delete_stray_file(self, kid: str) -> None:
        """Delete the file of a key that no longer has an entry in the state file."""
        if THUMBPRINT.fullmatch(kid):
            (self._folder / f"{kid}.pem").unlink(missing_ok=True)

    def _has_expired(self, record: KeyRecord) -> bool:
        """Return whether all tokens of a retired key have expired."""
        if record.state is not KeyState.RETIRED:
            return False
        if record.verifies_until is not None:
            return datetime.fromisoformat(record.verifies_until) < self._clock.now()
        return datetime.fromisoformat(record.since) + self._retention < self._clock.now()

    def _generate_missing(self, records: list[KeyRecord]) -> list[KeyRecord]:
        present = {record.state for record in records if record.algorithm == self._algorithm}
        required = (KeyState.ACTIVE, KeyState.NEXT)
        return [self._generate(state) for state in required if state not in present]

    def _generate(self, state: KeyState) -> KeyRecord:
        private = generate_key(self._algorithm)
        now = rfc3339(self._clock.now())
        record = KeyRecord(
            kid=thumbprint(public_jwk(private.public_key(), self._algorithm)),
            algorithm=self._algorithm,
            state=state,
            created_at=now,
            since=now,
        )
        _write_privately(self.path(record), pem_of(private))
        return record

    def _write_state(self, records: list[KeyRecord]) -> None:
        text = json.dumps({"keys": [asdict(record) for record in records]}, indent=2)
        _write_privately(self._folder / STATE_FILE, text.encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder against other commands: a lost update would lose a key."""
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
    """Write a file atomically that only its owner can read."""
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
    # The new name is durable only after the folder is written, too.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
