"""Service accounts, API keys and client credentials with the package, and the example script."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornService
from userapi_client import (
    ApiKey,
    Client,
    ClientCredentials,
    Introspection,
    OAuthError,
    Problem,
    TokenRefused,
    Verifier,
    parse_key,
)

from .conftest import PASSWORD, StartProgram
from .lossy_proxy import LossyProxy

ISSUER, AUDIENCE = "aima-user-service", "aima"
TOKEN = "/api/v1/auth/token"


@pytest.fixture
def proxy(service: GunicornService) -> Iterator[LossyProxy]:
    with LossyProxy(service.base_url) as proxy:
        yield proxy


@pytest.fixture
def account(admin: Client) -> Iterator[str]:
    """Return the id of a service account that may read and change users."""
    admin.roles.create(name="worker", permissions=["users:read", "users:update", "media:read"])
    found = admin.service_accounts.create(name="media-worker", roles=["worker"])
    yield found.id
    admin.service_accounts.delete(found.id)
    admin.roles.delete("worker")


@pytest.fixture
def key(admin: Client, account: str) -> str:
    return admin.api_keys.create(service_account=account, name="first").key


def refused(verifier: Verifier, token: str, *, fresh: bool = False) -> tuple[str, int]:
    with pytest.raises(TokenRefused) as error:
        verifier.verify(token, fresh=fresh)
    return error.value.code, error.value.status


@pytest.mark.thorough
def test_the_script_does_its_work_once_though_replies_are_lost(
    account: str,
    key: str,
    admin: Client,
    proxy: LossyProxy,
    start_program: StartProgram,
    tmp_path: Path,
) -> None:
    names = [f"walker-{number}" for number in range(5)]
    for name in names:
        admin.users.create(username=name, email=f"{name}@example.com", password=PASSWORD)

    # The account outranks users without permissions, and no administrator.
    admin.users.update(admin.auth.me().id, metadata={"team": "staff"})

    program = start_program(
        "script.py", USERAPI_URL=proxy.url, CLIENT_ID=account, CLIENT_SECRET=key
    )

    assert program.wait(120) == 0, (tmp_path / "programs.log").read_text("utf-8")
    users = list(admin.users.iter(search="walker-"))
    assert [dict(user.metadata) for user in users] == [{"team": "vision"}] * len(names)
    changes = [
        entry
        for user in users
        for entry in admin.audit.iter(target_id=user.id, action="user.updated")
    ]
    assert len(changes) == len(names)


def test_one_account_and_one_key_are_made_though_replies_are_lost(
    admin: Client, proxy: LossyProxy
) -> None:
    admin.auth.me()
    assert admin.tokens is not None
    with Client(proxy.url, ApiKey(admin.tokens.access_token), retries=8) as client:
        account = client.service_accounts.create(name="once")
        key = client.api_keys.create(service_account=account.id, name="only")
        found = list(client.api_keys.iter(service_account=account.id))
        accounts = list(client.service_accounts.iter(search="once"))
        client.service_accounts.delete(account.id)

    assert [item.id for item in accounts] == [account.id]
    assert [item.id for item in found] == [key.id]
    info = parse_key(key.key)
    assert info is not None and (info.kind, info.key_id) == ("service", key.id)


def test_two_threads_fetch_one_token(account: str, key: str, proxy: LossyProxy) -> None:
    with Client(proxy.url, ClientCredentials(account, key), retries=8) as client:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _: client.auth.me().id, range(8)))

    assert found == [account] * 8
    # A lost reply of the token endpoint is repeated.
    assert proxy.paths.count(TOKEN) <= 2


def test_a_rotated_key_works_until_its_overlap_ends(
    service: GunicornService, admin: Client, account: str
) -> None:
    first = admin.api_keys.create(service_account=account, name="first")
    second = admin.api_keys.rotate(first.id, service_account=account, overlap_seconds=600)
    with Client(service.base_url, ApiKey(first.key)) as old:
        assert old.auth.me().id == account
        third = admin.api_keys.rotate(second.id, service_account=account, overlap_seconds=0)
        assert old.auth.me().id == account
    for dead in (second.key,):
        with Client(service.base_url, ApiKey(dead)) as client, pytest.raises(Problem) as error:
            client.auth.me()
        assert error.value.code == "token_revoked"
    with Client(service.base_url, ClientCredentials(account, third.key)) as client:
        assert client.auth.me().id == account
    with (
        Client(service.base_url, ClientCredentials(account, second.key)) as client,
        pytest.raises(OAuthError) as oauth,
    ):
        client.auth.me()
    assert oauth.value.error == "invalid_client"


def test_a_verifier_knows_services_by_token_and_by_key(
    service: GunicornService, admin: Client, account: str, key: str
) -> None:
    with (
        Client(service.base_url, ClientCredentials(account, key, scope="media:read")) as client,
        Verifier(service.base_url, issuer=ISSUER, audience=AUDIENCE) as verifier,
    ):
        client.auth.me()
        token = client._authentication.token()
        assert token is not None
        found = verifier.verify(token)
        asked = verifier.verify(token, fresh=True)
        by_key = verifier.verify(key)

        for one in (found, asked, by_key):
            assert (one.id, one.type, one.session_id) == (account, "service", None)
            assert one.key_id is not None and one.can("media:read")
        assert not found.can("users:read") and by_key.can("users:read")

        admin.service_accounts.suspend(account)
        assert refused(verifier, token, fresh=True) == ("token_revoked", 401)
        assert refused(verifier, key) == ("token_revoked", 401)
        admin.service_accounts.activate(account)
        assert verifier.verify(key).id == account


def test_an_account_introspects_with_its_own_credentials(
    service: GunicornService, admin: Client, account: str, key: str
) -> None:
    admin.roles.create(name="inspector", permissions=["tokens:introspect"])
    inspector = admin.service_accounts.create(name="gate", roles=["inspector"])
    secret = admin.api_keys.create(service_account=inspector.id, name="gate").key
    bound = admin.api_keys.create(
        service_account=account, name="bound", allowed_networks=["192.0.2.0/24"]
    ).key
    for credentials in (ApiKey(secret), ClientCredentials(inspector.id, secret)):
        with Verifier(
            service.base_url,
            issuer=ISSUER,
            audience=AUDIENCE,
            revocation=Introspection(cache_seconds=0),
            credentials=credentials,
        ) as verifier:
            assert verifier.verify(key).username == "media-worker"
            assert verifier.verify(bound, address="192.0.2.7").id == account
            for address in ("198.51.100.1", None):
                with pytest.raises(TokenRefused) as error:
                    verifier.verify(bound, address=address)
                assert (error.value.code, error.value.status) == ("network_not_allowed", 403)
    admin.service_accounts.delete(inspector.id)
    admin.roles.delete("inspector")
