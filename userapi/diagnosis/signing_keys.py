"""Signing keys: whether one is active, whether a next one exists, and their age."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from userapi.authentication.key_folder import KeyFolder, KeyState
from userapi.authentication.keys import KeyRing
from userapi.clock import Clock
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.settings import Settings, SettingsError

MAX_KEY_AGE = timedelta(days=365)


def findings(
    settings: Settings, *, clock: Clock, keys: KeyRing, folder: KeyFolder
) -> Iterator[Finding]:
    """Yield whether a key signs, and whether it can be rotated in time."""
    if settings.jwt_algorithm == "HS256":
        yield Finding("keys", Level.OK, "HS256: other services cannot verify tokens locally")
        return
    try:
        keys.require_active()
        records = folder.usable()
    except SettingsError as exc:
        for problem in exc.problems:
            yield Finding("keys", Level.FAULT, problem, "Run `flask keys generate`.")
        return
    yield Finding("keys", Level.OK, f"a key signs with {settings.jwt_algorithm}")
    if settings.jwt_private_key_file is not None:
        return
    active = next(record for record in records if record.state is KeyState.ACTIVE)
    yield from warnings(
        "keys",
        (
            all(record.state is not KeyState.NEXT for record in records),
            "there is no next key: verifiers cannot fetch it before it signs",
            "Run `flask keys generate`.",
        ),
        (
            datetime.fromisoformat(active.since) + MAX_KEY_AGE < clock.now(),
            f"the key has signed since {active.since[:10]}",
            "Run `flask keys rotate`.",
        ),
    )
