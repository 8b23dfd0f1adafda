"""The REST client with a running service, through a network that drops responses."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.gunicorn import GunicornService
from tests.support.proxy import FaultProxy
from userapi_client import Client, Login, Problem, SessionEnded, Stale, Tokens

from .conftest import ADMINISTRATOR, PASSWORD

ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}


@pytest.fixture
def proxy(service: GunicornService) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", service.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    """Return a client behind the proxy. It has logged in."""
    url = f"http://{proxy.host}:{proxy.port}"
    with Client(url, Login(ADMINISTRATOR, PASSWORD), retries=8) as client:
        client.auth.me()
        yield client
        for user in client.users.iter(search="ada"):
            client.users.delete(user.id)


def lose_the_next_reply(proxy: FaultProxy) -> None:
    proxy.cut_mid_answer(20)
    threading.Timer(0.3, proxy.pass_on).start()


def test_a_lost_reply_of_a_create_makes_one_user(client: Client, proxy: FaultProxy) -> None:
    lose_the_next_reply(proxy)
    ada = client.users.create(**ADA)

    assert [user.id for user in client.users.iter(search="ada")] == [ada.id]


def test_a_lost_response_to_a_refresh_does_not_end_the_session(
    client: Client, proxy: FaultProxy
) -> None:
    before = client.tokens
    assert before is not None
    other = Client(
        f"http://{proxy.host}:{proxy.port}", Tokens("expired", before.refresh_token), retries=8
    )

    with other:
        # Not a token at all: refused as invalid, which is no reason to refresh.
        with pytest.raises(Problem) as refused:
            other.auth.me()
        assert refused.value.code == "token_invalid"
    assert client.auth.me().username == ADMINISTRATOR


def test_a_lost_reply_of_a_delete_is_done(client: Client, proxy: FaultProxy) -> None:
    ada = client.users.create(**ADA)
    lose_the_next_reply(proxy)

    client.users.delete(ada.id)

    assert list(client.users.iter(search="ada")) == []


def test_a_change_is_made_to_the_newest_state(client: Client) -> None:
    ada = client.users.create(**ADA)
    others = [{"first_name": "Augusta"}]

    def rename(now: object) -> dict[str, str]:
        if others:  # Someone else is faster, once.
            client.users.update(ada.id, **others.pop())
        return {"last_name": f"{getattr(now, 'first_name', None)} King"}

    assert client.users.change(ada.id, rename).last_name == "Augusta King"
    with pytest.raises(Stale):
        client.users.update(ada.id, if_match='"old"', last_name="Lovelace")


def test_all_users_are_walked_once(client: Client) -> None:
    names = [f"ada-{number:03d}" for number in range(7)]
    for name in names:
        client.users.create(username=name, email=f"{name}@example.com", password=PASSWORD)

    found = [
        user.username for user in client.users.iter(search="ada-", sort="username", page_size=3)
    ]

    assert found == names
    page = client.users.page(search="ada-", page_size=3)
    assert (page.total, len(page.items), page.next_cursor is not None) == (7, 3, True)


def test_an_account_is_administered_in_the_words_of_the_service(client: Client) -> None:
    ada = client.users.create(**ADA, metadata={"team": "vision"})
    assert client.users.get(ada.id).metadata == {"team": "vision"}
    assert client.users.suspend(ada.id, reason="a trial").status == "suspended"
    assert client.users.activate(ada.id).status == "active"
    assert client.users.unlock(ada.id).locked_until is None
    assert client.users.set_roles(ada.id, ["moderator"]) == ("moderator",)
    assert client.users.roles(ada.id) == ("moderator",)
    explained = {item.permission: item.via for item in client.users.permissions(ada.id)}
    assert explained["users:suspend"] == (("moderator",),)
    assert client.users.end_sessions(ada.id) == 0
    assert client.users.sessions(ada.id) == ()
    actions = [entry.action for entry in client.audit.iter(target_id=ada.id)]
    assert actions[-1] == "user.created" and "user.suspended" in actions
    activity = [entry.action for entry in client.users.activity(ada.id, page_size=2)]
    assert activity[-1] == "user.created"
    bulk = client.users.bulk("suspend", [ada.id])
    assert (bulk.succeeded, bulk.results[0].status) == (1, "ok")
    imported = client.users.import_rows(b'{"username":"ada-2","email":"ada-2@example.com"}\n')
    assert imported.failed == 0
    assert client.users.statistics(days=1).total >= 3
    client.users.reset_password(ada.id)


def test_roles_are_administered(client: Client) -> None:
    role = client.roles.create(name="editor", permissions=["media:read"])
    assert [found.name for found in client.roles.iter() if not found.builtin] == ["editor"]
    changed = client.roles.change(
        "editor", lambda now: {"permissions": [*now.permissions, "media:write"]}
    )
    assert changed.permissions == ("media:read", "media:write")
    assert {found.name for found in client.roles.permissions()} >= {"users:read"}
    client.roles.delete(role.name)


def test_the_session_of_the_client(service: GunicornService, client: Client) -> None:
    client.users.create(**ADA)
    with Client(service.base_url, Login("ada", PASSWORD)) as own:
        assert own.auth.me().username == "ada"
        assert [session.current for session in own.auth.sessions()] == [True]
        pair = own.auth.change_password(PASSWORD, "amber-meadow-57-telescope")
        assert own.tokens == pair
        assert own.auth.me().username == "ada"
        former = own.auth.refresh()
        assert own.tokens == former != pair
        pair = own.auth.step_up(password="amber-meadow-57-telescope")
        assert own.tokens == pair != former
        assert client.auth.introspect(pair.access_token)["username"] == "ada"
        own.auth.logout()
        for _ in range(2):
            with pytest.raises(SessionEnded):
                own.auth.me()


def test_a_refusal_is_a_problem_with_its_code(client: Client) -> None:
    with pytest.raises(Problem) as refused:
        client.users.create(username="x")

    assert (refused.value.status, refused.value.code) == (422, "validation_failed")
    assert "email" in [error["field"] for error in refused.value.errors]
    assert refused.value.correlation_id
