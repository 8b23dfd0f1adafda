"""The verifier with a running service: the whole lifetime of a token."""

from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from flask import Flask

from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.polling import wait_until
from userapi_client import (
    ApiKey,
    Client,
    Introspection,
    Login,
    TokenRefused,
    Tokens,
    Unavailable,
    Verifier,
)
from userapi_client.flask import UserApi

from .conftest import ADMINISTRATOR, FAST, PASSWORD, People

ISSUER, AUDIENCE = "aima-user-service", "aima"


@pytest.fixture
def verifier(service: GunicornService) -> Iterator[Verifier]:
    with Verifier(service.base_url, issuer=ISSUER, audience=AUDIENCE) as verifier:
        yield verifier


def refused(verifier: Verifier, token: str, *, fresh: bool = False) -> str:
    with pytest.raises(TokenRefused) as error:
        verifier.verify(token, fresh=fresh)
    return error.value.code


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def tokens_of(client: Client) -> Tokens:
    assert client.tokens is not None
    return client.tokens


def test_a_good_token_is_accepted_and_no_other(verifier: Verifier, people: People) -> None:
    user, tokens = people.holding("media:read")

    found = verifier.verify(tokens.access_token)

    assert (found.id, found.type, found.checked) == (user, "user", "signature")
    assert found.can("media:read") and not found.can("media:delete")
    assert verifier.verify(tokens.access_token, fresh=True).permissions == found.permissions
    bad = [tokens.refresh_token, tokens.access_token[:-8] + "AAAAAAAA", "x"]
    assert [refused(verifier, token) for token in bad] == ["token_invalid"] * 3


def test_a_session_that_has_ended_is_noticed_where_the_service_is_asked(
    service: GunicornService, verifier: Verifier, people: People
) -> None:
    _, tokens = people.holding("media:read")
    with Client(service.base_url, tokens) as client:
        client.auth.logout()

    assert refused(verifier, tokens.access_token, fresh=True) == "token_revoked"
    # By the signature alone it is good until it expires: that is what the guide says.
    assert verifier.verify(tokens.access_token).checked == "signature"


def test_introspection_with_a_key_of_this_service_is_refused_without_the_permission(
    service: GunicornService, people: People
) -> None:
    """Refused credentials of the verifier must not look like a bad token of the caller."""
    _, tokens = people.holding("media:read")
    own = tokens.access_token
    with (
        Verifier(
            service.base_url,
            issuer=ISSUER,
            audience=AUDIENCE,
            revocation=Introspection(),
            credentials=ApiKey(own),
        ) as verifier,
        pytest.raises(Unavailable),
    ):
        verifier.verify(own)


def test_introspection_returns_the_name_and_the_expiry_of_a_session(
    service: GunicornService, admin: Client, people: People
) -> None:
    user, tokens = people.holding("media:read", "tokens:introspect")
    with Verifier(
        service.base_url,
        issuer=ISSUER,
        audience=AUDIENCE,
        revocation=Introspection(cache_seconds=0),
        credentials=ApiKey(tokens_of(admin).access_token),
    ) as verifier:
        found = verifier.verify(tokens.access_token)
        assert (found.id, found.checked) == (user, "service")
        assert found.username is not None and found.username.startswith("person-")
        assert refused(verifier, tokens.refresh_token) == "token_invalid"

        admin.users.suspend(user)

        assert refused(verifier, tokens.access_token) == "token_revoked"


@pytest.mark.parametrize(("last", "may"), [("media:delete", True), ("media:read", False)])
def test_permissions_that_a_token_omits_are_asked_for(
    verifier: Verifier, people: People, last: str, may: bool
) -> None:
    """Six roles of sixty permissions make a token too long to send."""
    name = last.replace(":", "-")
    roles = [f"{name}-{number}" for number in range(6)]
    for role in roles:
        permissions = [f"{role}-resource:action-{number:02d}" for number in range(59)]
        people.admin.roles.create(name=role, permissions=[*permissions, last])
    people.admin.users.create(
        username=name, email=f"{name}@example.com", password=PASSWORD, roles=roles
    )
    with Client(people.service.base_url, Login(name, PASSWORD)) as client:
        client.auth.me()
        found = verifier.verify(tokens_of(client).access_token)

    assert "permissions" not in found.claims
    assert found.can("media:delete") is may
    assert len(found.permissions) == 6 * 59 + 1


@pytest.mark.thorough
def test_an_outage_of_the_service_is_no_refusal(people: People, verifier: Verifier) -> None:
    _, tokens = people.holding("media:read")
    verifier.warm()

    people.service.kill()
    try:
        assert verifier.verify(tokens.access_token).checked == "signature"
        with pytest.raises(Unavailable):
            verifier.verify(tokens.access_token, fresh=True)
    finally:
        people.service.start()


@pytest.mark.thorough
def test_tokens_of_a_new_key_are_accepted(
    service: GunicornService, admin: Client, verifier: Verifier, people: People
) -> None:
    _, old = people.holding("media:read")
    verifier.verify(old.access_token)
    rotated = service.flask("keys", "rotate")
    assert rotated.returncode == 0, rotated.stderr

    found: list[str] = []

    def another_key_signs() -> bool:
        found.append(people.holding("media:read")[1].access_token)
        return kid_of(found[-1]) != kid_of(old.access_token)

    wait_until(another_key_signs)
    with Verifier(service.base_url, issuer=ISSUER, audience=AUDIENCE) as later:
        for token in (found[-1], old.access_token):
            assert later.verify(token).can("media:read")


@pytest.mark.parametrize(
    ("wanted", "challenge"),
    [({"max_age": 0}, 'max_age="0"'), ({"acr": "aal2"}, 'acr_values="aal2"')],
)
def test_deleting_needs_a_recent_and_strong_authentication(
    verifier: Verifier, people: People, wanted: dict[str, Any], challenge: str
) -> None:
    app = Flask("media")
    auth = UserApi(verifier, app)
    app.delete("/strict")(auth.required("media:delete", **wanted)(lambda: ("", 204)))
    app.delete("/lenient", endpoint="lenient")(
        auth.required("media:delete", max_age=900, acr="aal1")(lambda: ("", 204))
    )
    _, tokens = people.holding("media:delete")
    headers = {"Authorization": f"Bearer {tokens.access_token}"}

    refused = app.test_client().delete("/strict", headers=headers)

    assert refused.status_code == 401
    assert refused.get_json()["code"] == "insufficient_user_authentication"
    found = refused.headers["WWW-Authenticate"]
    assert found.startswith('Bearer error="insufficient_user_authentication", ')
    assert found.endswith(challenge)
    assert app.test_client().delete("/lenient", headers=headers).status_code == 204


@pytest.mark.thorough
def test_a_service_with_hs256_is_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    with GunicornService({**FAST, "JWT_SECRET_KEY": "a secret of at least thirty-two bytes"}) as hs:
        add_administrator(hs, PASSWORD)
        with (
            Client(hs.base_url, Login(ADMINISTRATOR, PASSWORD)) as client,
            Verifier(hs.base_url, issuer=ISSUER, audience=AUDIENCE, algorithm=None) as verifier,
        ):
            client.auth.me()
            token = tokens_of(client).access_token
            assert verifier.verify(token).can("users:read")
            client.auth.logout()
            assert refused(verifier, token) == "token_revoked"
            assert refused(verifier, token[:-4] + "AAAA") == "token_invalid"
