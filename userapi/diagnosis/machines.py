"""Service accounts and API keys: what strict OAuth clients reject, and keys that never expire."""

from collections.abc import Iterator

from userapi.clock import Clock
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.database import reading
from userapi.machines.counts import count_endless_keys
from userapi.settings import Settings


def issuer_findings(settings: Settings) -> Iterator[Finding]:
    """Yield whether the issuer of tokens is the address of the service."""
    yield from warnings(
        "settings",
        (
            settings.jwt_issuer.rstrip("/") != settings.public_base_url.rstrip("/"),
            f"JWT_ISSUER is {settings.jwt_issuer} and not PUBLIC_BASE_URL: strict OAuth clients"
            " compare them with the address of the metadata",
            "Set JWT_ISSUER to PUBLIC_BASE_URL. Services that verify tokens must expect it, too.",
        ),
    )


def key_findings(clock: Clock) -> Iterator[Finding]:
    """Yield how many active keys never expire."""
    with reading() as connection:
        endless = count_endless_keys(connection, clock.now())
    if endless:
        yield Finding(
            "api keys",
            Level.WARNING,
            f"{endless} active API keys never expire",
            "Rotate them with an end. API_KEY_MAX_DAYS limits the lifetime of new keys.",
        )
    else:
        yield Finding("api keys", Level.OK, "every active API key expires")
