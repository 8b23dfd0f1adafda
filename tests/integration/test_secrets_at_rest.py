"""A dump of the database and of Redis contains no usable token or password."""

import re
from collections.abc import Callable, Iterator

import pytest
import redis
from flask import Flask
from sqlalchemy import text

from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.second_factors import add_app, second_step
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient
from userapi.authentication.refusals import TokenInvalid
from userapi.infrastructure.database import Base, reading
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import InvalidToken
from userapi.wiring.services import Services

NEW_PASSWORD = "granite-otter-57-teapot"
TYPED = "slip-of-the-finger-81"
WORD = re.compile(r"[A-Za-z0-9_.+/=-]{8,}")


@pytest.fixture
def own_app(make_app: Callable[..., Flask]) -> Flask:
    """Return a service that keeps all it can keep in Redis."""
    return make_app(RATE_LIMIT_ENABLED="true", SESSION_CACHE_SECONDS="300")


def live_a_little(app: Flask, make_user: MakeUser, log_in: LogIn) -> set[str]:
    """Do whatever makes or takes a secret, and return all that have been seen."""
    client, mailbox = JsonClient(app), Mailbox(app)
    session = log_in(make_user("robin"))
    secrets = {PASSWORD, NEW_PASSWORD, TYPED, session.access_token, session.refresh_token}
    token = session.refresh_token
    for _ in range(2):
        pair = client.post("/api/v1/auth/refresh", json={"refresh_token": token}).get_json()
        token = pair["refresh_token"]
        secrets |= {pair["access_token"], token}
    mine = JsonClient(app, token=pair["access_token"])
    mine.get("/api/v1/auth/me")
    client.post("/api/v1/auth/login", json={"username": "robin", "password": TYPED})
    client.post("/api/v1/auth/login", json={"username": TYPED, "password": TYPED})
    changed = mine.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    ).get_json()
    secrets |= {changed["access_token"], changed["refresh_token"]}
    JsonClient(app, token=changed["access_token"]).get("/api/v1/auth/me")
    boss = log_in(make_user("boss", roles=["admin"]))
    new = {"username": "ada", "email": "ada@example.com"}
    boss.post("/api/v1/users/", json=new, headers={"Idempotency-Key": "ada-once"})
    secrets.add(mailbox.token())
    client.post("/api/v1/auth/reset-password", json={"email": "robin@example.com"})
    secrets.add(mailbox.token())
    register = new | {"username": "bea", "email": "bea@example.com", "password": NEW_PASSWORD}
    client.post("/api/v1/auth/register", json=register, headers={"Idempotency-Key": "bea-once"})
    phone = add_app(SignedInClient(app, changed), app.extensions["userapi"].clock)
    secrets |= {phone.secret, *phone.recovery_codes, phone.client.refresh_token}
    robin = {"username": "robin", "password": NEW_PASSWORD}
    token = client.post("/api/v1/auth/login", json=robin).get_json()["mfa_token"]
    second_step(app, token, phone.recovery_codes[0])
    open_token = client.post("/api/v1/auth/login", json=robin).get_json()["mfa_token"]
    return secrets | {boss.access_token, boss.refresh_token, token, open_token}


def cells(app: Flask, server: redis.Redis) -> Iterator[str]:
    """Return all that PostgreSQL and Redis hold, as text."""
    with app.app_context(), reading() as connection:
        for table in Base.metadata.tables.values():
            for row in connection.execute(text(f"SELECT {table.name}::text FROM {table.name}")):
                yield str(row[0])
    for key in server.scan_iter("*"):
        yield repr(key)
        yield repr(server.get(key)) if server.type(key) == b"string" else repr(server.dump(key))


def test_nothing_at_rest_can_be_used_as_a_token_or_a_password(
    own_app: Flask, make_user: MakeUser, log_in: LogIn, redis_url: str
) -> None:
    secrets = live_a_little(own_app, make_user, log_in)

    with redis.Redis.from_url(redis_url) as server:
        dump = "\n".join(cells(own_app, server))

    assert "robin" in dump and "userapi:live:{" in dump and "userapi:rate:" in dump
    assert [secret for secret in secrets if secret in dump] == []
    # Nor the part of a token that only its maker knows.
    signatures = [token.rsplit(".", 1)[1] for token in secrets if token.count(".") == 2]
    assert len(signatures) >= 8
    assert [signature for signature in signatures if signature in dump] == []
    services: Services = own_app.extensions["userapi"]
    with own_app.app_context():
        for word in set(WORD.findall(dump)):
            _refuse(services, word)


def _refuse(services: Services, word: str) -> None:
    """Try a word in each place where a token is taken."""
    with pytest.raises(TokenInvalid):
        services.token_status.verify_access(word)
    with pytest.raises(TokenInvalid):
        services.token_status.verify_either(word)
    with pytest.raises(InvalidToken):
        services.one_time_tokens.owner_of(word, *TokenPurpose)
