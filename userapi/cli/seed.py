"""flask seed: realistic test users and service accounts of different ages, with audit rows."""

import random
import sys
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import click
from faker import Faker
from sqlalchemy import insert

from userapi.accounts.addresses import EmailAddress
from userapi.accounts.models import User, UserStatus
from userapi.accounts.new_users import user_row
from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditLog
from userapi.factors.models import TotpFactor
from userapi.factors.totp import new_secret
from userapi.infrastructure.database import new_id, table_of, transaction
from userapi.roles.models import UserRole

from .seed_services import add_service_accounts, id_at
from .support import generate_password, safely, services

BATCH = 2000
FIXED_SEED = 20240229
OLDEST_DAYS = 720
DEFAULT_MFA_PERCENT = 10
DEFAULT_SERVICE_ACCOUNTS = 8
APP_NAME = "Phone"
LOCALES = ["en-GB", "de-CH", "fr-FR", "es-ES", "pt-BR", "it-IT", "nl-NL"]
ZONES = ["Europe/London", "Europe/Zurich", "Europe/Paris", "America/Sao_Paulo", "Asia/Tokyo"]
ADDRESSES = [f"203.0.113.{number}" for number in range(1, 255)]

_users = table_of(User)
_user_roles = table_of(UserRole)
_audit = table_of(AuditLog)
_apps = table_of(TotpFactor)


@click.command("seed", help="Fill the database with realistic test users and service accounts.")
@click.option("--users", "count", type=click.IntRange(1, 5_000_000), required=True)
@click.option("--fixed", is_flag=True, help="Create the same users each time.")
@click.option(
    "--mfa-percent",
    type=click.IntRange(0, 100),
    default=DEFAULT_MFA_PERCENT,
    show_default=True,
    help="Share of active users with an authenticator app.",
)
@click.option(
    "--service-accounts",
    "service_count",
    type=click.IntRange(0, 10_000),
    default=DEFAULT_SERVICE_ACCOUNTS,
    show_default=True,
    help="How many service accounts, with keys.",
)
@click.option(
    "--password-stdin", is_flag=True, help="Read their common password from standard input."
)
@safely
def command(
    count: int, fixed: bool, mfa_percent: int, service_count: int, password_stdin: bool
) -> None:
    """Insert users, their roles and their audit rows in batches of one transaction each."""
    chance = random.Random(FIXED_SEED if fixed else None)  # nosec B311
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else generate_password()
    # One hash for all: a hash for each of 100 000 would take seven hours.
    password_hash = services().passwords.hasher.hash(password)
    people = _People(chance, password_hash, services().clock.now(), mfa_share=mfa_percent / 100)
    # One secret for all as well, so that testers can pass the second step as any of them.
    secret = new_secret()
    with click.progressbar(length=count, label="Seeding", show_pos=True) as bar:
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            batch = [people.make() for _ in range(size)]
            with transaction() as session:
                session.execute(insert(_users), [user for user, _ in batch])
                session.execute(insert(_user_roles), [_role(u, chance) for u, _ in batch])
                session.execute(insert(_audit), [row for _, rows in batch for row in rows])
                apps = [_app(user, secret) for user, _ in batch if user["mfa_enabled"]]
                if apps:
                    session.execute(insert(_apps), apps)
            bar.update(size)
    click.secho(f"Created {count} users.", fg="green")
    if not password_stdin:
        click.echo("All users have the same password (shown only once):\n")
        click.secho(f"    {password}\n", bold=True)
    if mfa_percent:
        click.echo("Users with an authenticator app have the same secret (shown only once):\n")
        click.secho(f"    {secret}\n", bold=True)
    if service_count:
        _add_service_accounts(service_count, chance)


def _add_service_accounts(count: int, chance: random.Random) -> None:
    sample = add_service_accounts(count, chance=chance, now=services().clock.now())
    click.secho(f"Created {count} service accounts.", fg="green")
    click.echo("The client id of one of them, and its key (shown only once):\n")
    click.secho(f"    {sample.client_id}\n    {sample.text}\n", bold=True)


def _role(user: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    draw = chance.random()
    name = "admin" if draw < 0.002 else "moderator" if draw < 0.02 else "user"
    return {"user_id": user["id"], "role_name": name}


def _app(user: dict[str, Any], secret: str) -> dict[str, Any]:
    factor_id = new_id()
    sealed = services().secrets.totp_secrets.seal(secret, user_id=user["id"], factor_id=factor_id)
    return {
        "id": factor_id,
        "user_id": user["id"],
        "name": APP_NAME,
        **sealed.columns,
        "last_step": 0,
        "created_at": user["created_at"],
        "confirmed_at": user["created_at"],
    }


class _People:
    """Generates users. Names come from lists that are drawn once, because Faker is slow."""

    def __init__(
        self, chance: random.Random, password_hash: str, now: datetime, *, mfa_share: float
    ) -> None:
        self._mfa_share = mfa_share
        self._chance = chance
        self._password_hash = password_hash
        self._now = now
        self._suffix = f"{chance.getrandbits(20):05x}"
        self._number = 0
        faker = Faker(["en_GB", "de_DE", "fr_FR", "es_ES", "it_IT"])
        faker.seed_instance(chance.getrandbits(32))
        self._first = [faker.first_name() for _ in range(600)]
        self._last = [faker.last_name() for _ in range(1200)]

    def make(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the row of a user and the audit rows about them."""
        chance = self._chance
        self._number += 1
        first, last = chance.choice(self._first), chance.choice(self._last)
        name = f"{_plain(first)}.{_plain(last)}.{self._suffix}{self._number}"[:64]
        email = f"{name}@example.com"
        created = self._now - timedelta(days=OLDEST_DAYS * chance.random() ** 1.5, seconds=1)
        logins = sorted(self._between(created) for _ in range(chance.choice([0, 1, 1, 2, 3])))
        draw = chance.random()
        status = (
            UserStatus.ACTIVE
            if draw < 0.92
            else UserStatus.PENDING
            if draw < 0.97
            else UserStatus.SUSPENDED
        )
        if status is UserStatus.PENDING:
            logins = []
        user_id = id_at(created, self._chance)
        row = user_row(
            username=name,
            email=EmailAddress(email, email),
            password_hash=self._password_hash,
            status=status,
            now=created,
            profile={
                "first_name": first,
                "last_name": last,
                "locale": chance.choice(LOCALES),
                "timezone": chance.choice(ZONES),
            },
        )
        user = row | {
            "id": user_id,
            "email_verified": status is not UserStatus.PENDING,
            "status_reason": "Terms of use" if status is UserStatus.SUSPENDED else None,
            "updated_at": max([created, *logins]),
            "last_login_at": logins[-1] if logins else None,
            "mfa_enabled": status is UserStatus.ACTIVE and chance.random() < self._mfa_share,
        }
        return user, list(self._history(user, logins))

    def _history(self, user: dict[str, Any], logins: list[datetime]) -> Iterator[dict[str, Any]]:
        address = self._chance.choice(ADDRESSES)
        yield self._row(AuditAction.USER_REGISTERED, user, user["created_at"], address)
        for moment in logins:
            if self._chance.random() < 0.1:
                yield self._row(
                    AuditAction.AUTH_LOGIN,
                    user,
                    moment - timedelta(seconds=20),
                    address,
                    Outcome.FAILURE,
                )
            yield self._row(AuditAction.AUTH_LOGIN, user, moment, address)

    def _row(
        self,
        action: AuditAction,
        user: dict[str, Any],
        moment: datetime,
        address: str,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> dict[str, Any]:
        known = outcome is Outcome.SUCCESS and action is not AuditAction.USER_REGISTERED
        return {
            "id": id_at(moment, self._chance),
            "occurred_at": moment,
            "action": action,
            "outcome": outcome,
            "actor_id": user["id"] if known else None,
            "actor_username": user["username"] if known else None,
            "actor_type": ActorType.USER if known else ActorType.ANONYMOUS,
            "session_id": None,
            "target_type": "user",
            "target_id": str(user["id"]),
            "ip_address": address,
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "correlation_id": f"seed-{self._chance.getrandbits(64):016x}",
            "changes": None,
            "details": None,
        }

    def _between(self, created: datetime) -> datetime:
        return created + (self._now - created) * self._chance.random()


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in text if c.isascii() and c.isalnum()) or "x"
