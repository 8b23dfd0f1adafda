"""The REST client on a bad network: what is sent again, and what is not."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from either import AnyClient
from hostile import SESSION, TOKEN, USER, HostileService, Reply, Request, problem

from userapi_client import (
    ApiKey,
    Client,
    ClientCredentials,
    Login,
    OAuthError,
    Problem,
    SessionEnded,
    Stale,
    Tokens,
    Unavailable,
    UserApiError,
)
from userapi_client.retries import Retries

Make = Callable[..., AnyClient]
ME, USERS, REFRESH = "/api/v1/auth/me", "/api/v1/users/", "/api/v1/auth/refresh"
ONE = f"/api/v1/users/{USER}"
LOGIN = "/api/v1/auth/login"


def user(**changes: Any) -> dict[str, Any]:
    return {
        "id": USER,
        "username": "robin",
        "email": "robin@example.com",
        "email_verified": True,
        "first_name": None,
        "last_name": None,
        "phone": None,
        "locale": None,
        "timezone": None,
        "avatar_url": None,
        "status": "active",
        "status_reason": None,
        "suspended_until": None,
        "roles": ["user"],
        "metadata": {},
        "must_change_password": False,
        "mfa_enabled": False,
        "created_at": "2026-01-31T12:00:00Z",
        "updated_at": "2026-01-31T12:00:00Z",
        "last_login_at": None,
        "locked_until": None,
        **changes,
    }


def in_turn(*replies: Reply) -> Callable[[Request], Reply]:
    """Return a behaviour that gives one reply after the other, and the last one for ever."""
    left = list(replies)
    lock = threading.Lock()

    def next_reply(_: Request) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return next_reply


CUT = Reply(is_cut=True)
DONE = Reply(document=user())
BUSY = problem(503, "service_unavailable", Retry_After="0")


@pytest.mark.parametrize(
    "failure",
    [
        CUT,
        BUSY,
        problem(502, "bad_gateway"),
        problem(504, "gateway_timeout"),
        problem(429, "rate_limited", Retry_After="0"),
        problem(409, "request_in_progress", Retry_After="0"),
        Reply(status=200, body=b"<html>", has_correlation_id=False),
    ],
    ids=lambda reply: f"{reply.status}-{reply.is_cut}",
)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {}),
        ("PUT", {"json": {}}),
        ("DELETE", {}),
        ("PATCH", {"json": {}, "if_match": '"1"'}),
        ("POST", {"json": {}, "idempotency_key": "k"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_may_be_sent_twice_is_sent_again(
    service: HostileService, failure: Reply, method: str, options: dict[str, Any]
) -> None:
    service.answer(ONE, in_turn(failure, failure, DONE))

    with Client(service.url) as client:
        assert client.request(method, f"/users/{USER}", **options).json()["id"] == USER
    assert service.counts[ONE] == 3
    sent = [
        (request.method, request.headers.get("Idempotency-Key")) for request in service.requests
    ]
    assert len(set(sent)) == 1


@pytest.mark.parametrize("failure", [CUT, BUSY, problem(429, "rate_limited", Retry_After="0")])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_may_not_be_sent_twice_is_sent_once(
    make_client: Make, service: HostileService, failure: Reply, method: str
) -> None:
    service.answer(ONE, in_turn(failure, DONE))

    with pytest.raises((Unavailable, Problem)):
        make_client().do(lambda api: api.request(method, f"/users/{USER}", json={}))
    assert service.counts[ONE] == 1


@pytest.mark.parametrize(
    "reply",
    [
        problem(429, "too_many_attempts", Retry_After="0"),
        problem(409, "username_taken"),
        problem(500, "internal_error"),
        problem(404, "not_found"),
    ],
)
def test_a_refusal_is_final(make_client: Make, service: HostileService, reply: Reply) -> None:
    service.reply(ONE, reply)

    with pytest.raises(Problem) as refused:
        make_client().do(lambda api: api.users.get(USER))

    assert (refused.value.status, refused.value.code) == (reply.status, reply.document["code"])
    assert refused.value.correlation_id == "c0ffee"
    assert service.counts[ONE] == 1


def test_a_lasting_outage_is_unavailable_and_a_problem(
    make_client: Make, service: HostileService
) -> None:
    service.reply(ONE, BUSY)

    with pytest.raises(Unavailable) as unavailable:
        make_client(retries=2).do(lambda api: api.users.get(USER))

    assert isinstance(unavailable.value, Problem)
    assert (unavailable.value.status, unavailable.value.retry_after) == (503, 0)
    assert service.counts[ONE] == 3


def test_a_wait_beyond_the_budget_is_not_waited(make_client: Make, service: HostileService) -> None:
    service.reply(ONE, problem(503, "service_unavailable", Retry_After="31"))
    begun = time.monotonic()

    with pytest.raises(Unavailable) as unavailable:
        make_client(budget=30).do(lambda api: api.users.get(USER))

    assert unavailable.value.retry_after == 31
    assert (service.counts[ONE], time.monotonic() - begun < 25) == (1, True)


def test_a_service_that_is_not_there_is_unavailable(make_client: Make) -> None:
    client = make_client(base_url="http://127.0.0.1:9", retries=1)

    with pytest.raises(Unavailable):
        client.do(lambda api: api.users.get(USER))
    with pytest.raises(Unavailable):
        client.do(lambda api: api.auth.revoke("token"))


def test_no_redirect_is_followed(make_client: Make, service: HostileService) -> None:
    service.reply(ONE, Reply(status=307, headers={"Location": f"{service.url}/elsewhere"}))

    with pytest.raises(Problem) as refused:
        make_client(ApiKey("key")).do(lambda api: api.users.get(USER))

    assert refused.value.status == 307
    assert service.counts["/elsewhere"] == 0


@pytest.mark.parametrize("path", ["http://evil/", "//evil/", "users/", "/users/../../x", "/\\evil"])
def test_no_path_leads_elsewhere(make_client: Make, path: str) -> None:
    with pytest.raises(ValueError):
        make_client(ApiKey("key")).do(lambda api: api.request("GET", path))
    with pytest.raises(ValueError):
        make_client().do(lambda api: api.users.get(".."))


def test_create_has_one_key_for_all_tries(make_client: Make, service: HostileService) -> None:
    service.answer(USERS, in_turn(CUT, CUT, DONE))
    client = make_client()

    found = client.do(lambda api: api.users.create(username="robin", email="robin@example.com"))
    client.do(lambda api: api.users.create(username="other", idempotency_key="mine"))

    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert found.username == "robin"
    assert (len(set(keys[:3])), keys[3], keys[0] != "mine") == (1, "mine", True)


def test_a_delete_that_was_lost_is_done(make_client: Make, service: HostileService) -> None:
    client = make_client()
    service.answer(ONE, in_turn(CUT, problem(404, "not_found")))
    client.do(lambda api: api.users.delete(USER))

    service.answer(ONE, in_turn(problem(404, "not_found")))
    with pytest.raises(Problem):
        client.do(lambda api: api.users.delete(USER))


def versions(*states: dict[str, Any]) -> Callable[[Request], Reply]:
    """Return a user who is changed by someone else before each write but the last."""
    left = list(states)

    def behave(request: Request) -> Reply:
        etag = f'"{len(left)}"'
        if request.method == "GET":
            return Reply(document=user(**left[0]), headers={"ETag": etag})
        if len(left) > 1:
            left.pop(0)
            return problem(412, "stale_resource")
        assert request.headers["If-Match"] == etag
        return Reply(document=user(**left[0], **json.loads(request.body)))

    return behave


def test_a_change_is_made_to_the_newest_state(make_client: Make, service: HostileService) -> None:
    states: list[dict[str, Any]] = [{"first_name": "Ada"}, {"first_name": "Augusta"}]
    service.answer(ONE, versions(*states))

    found = make_client().do(
        lambda api: api.users.change(USER, lambda now: {"last_name": f"{now.first_name} King"})
    )

    assert (found.first_name, found.last_name) == ("Augusta", "Augusta King")


def test_a_change_gives_up_after_four_tries(make_client: Make, service: HostileService) -> None:
    service.answer(ONE, versions(*({"first_name": str(number)} for number in range(9))))

    with pytest.raises(Stale):
        make_client().do(lambda api: api.users.change(USER, lambda now: {"last_name": "King"}))

    assert [request.method for request in service.requests] == ["GET", "PATCH"] * 4


def test_a_change_whose_reply_was_lost_is_not_made_twice(
    make_client: Make, service: HostileService
) -> None:
    state = user(metadata={"count": 1})
    etags = ['"1"']

    def behave(request: Request) -> Reply:
        if request.method == "GET":
            return Reply(document=state, headers={"ETag": etags[-1]})
        if request.headers["If-Match"] != etags[-1]:
            return problem(412, "stale_resource")
        state.update(json.loads(request.body))
        etags.append(f'"{len(etags) + 1}"')
        return CUT

    service.answer(ONE, behave)
    found = make_client().do(
        lambda api: api.users.change(
            USER, lambda now: {"metadata": {"count": now.metadata["count"] + 1}}
        )
    )

    assert dict(found.metadata) == {"count": 2}


def test_a_list_is_walked_by_its_cursors(make_client: Make, service: HostileService) -> None:
    def page(request: Request) -> Reply:
        query = httpx2.URL(request.path).params
        number = int(query.get("cursor", "0"))
        assert (query["status"], query["page_size"]) == ("active", "100")
        items = [user(username=f"user-{number}", a_new_member={"x": 1})]
        document = {"items": items, "next_cursor": str(number + 1) if number < 2 else None}
        return Reply(document={**document, "total": 3, "total_is_exact": True})

    service.answer(USERS, page)
    client = make_client()

    found = client.all(lambda api: api.users.iter(status="active"))
    first = client.do(lambda api: api.users.page(status="active", page_size=100))

    assert [item.username for item in found] == ["user-0", "user-1", "user-2"]
    assert found[0].raw["a_new_member"] == {"x": 1}
    assert (first.total, first.next_cursor, first.items[0].username) == (3, "1", "user-0")


def test_a_list_without_an_end_is_noticed(make_client: Make, service: HostileService) -> None:
    service.reply(USERS, Reply(document={"items": [user()], "next_cursor": "same"}))

    with pytest.raises(Unavailable):
        make_client().all(lambda api: api.users.iter())


@pytest.mark.parametrize(
    "document", [{}, [], {**user(), "id": 5}, {**user(), "created_at": "soon"}, "text"]
)
def test_a_reply_of_another_form_is_unavailable(
    make_client: Make, service: HostileService, document: Any
) -> None:
    service.reply(ONE, Reply(document=document))

    with pytest.raises(Unavailable):
        make_client().do(lambda api: api.users.get(USER))


def pair(number: int, *, expires_in: int = 1800) -> dict[str, Any]:
    return {
        "access_token": f"access-{number}",
        "refresh_token": f"refresh-{number}",
        "token_type": "bearer",
        "expires_in": expires_in,
        "refresh_expires_in": 9999,
        "session_id": SESSION,
    }


def accepting(*tokens: str, code: str = "token_expired") -> Callable[[Request], Reply]:
    """Return a behaviour that accepts these tokens alone."""

    def behave(request: Request) -> Reply:
        return DONE if request.bearer in tokens else problem(401, code)

    return behave


def test_an_expired_token_is_refreshed_once_for_all(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-2"))
    service.reply(REFRESH, Reply(document=pair(2)))
    client = make_client(Tokens("access-1", "refresh-1"))

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: client.do(lambda api: api.users.get(USER)).id, range(50)))

    assert found == [USER] * 50
    assert service.counts[REFRESH] == 1
    assert client.client.tokens == Tokens("access-2", "refresh-2")


def test_a_lost_refresh_is_repeated_with_the_same_token(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-2"))
    service.answer(REFRESH, in_turn(CUT, CUT, Reply(document=pair(2))))

    make_client(Tokens("access-1", "refresh-1")).do(lambda api: api.users.get(USER))

    sent = [json.loads(request.body) for request in service.requests if "refresh" in request.path]
    assert sent == [{"refresh_token": "refresh-1"}] * 3


def test_a_caller_can_refresh_before_the_end_of_a_token(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-2"))
    service.answer(REFRESH, in_turn(CUT, Reply(document=pair(2))))
    client = make_client(Tokens("access-1", "refresh-1"))

    assert client.do(lambda api: api.auth.refresh()) == Tokens("access-2", "refresh-2")
    assert client.client.tokens == Tokens("access-2", "refresh-2")
    assert client.do(lambda api: api.users.get(USER)).id == USER
    assert (service.counts[ONE], service.counts[REFRESH]) == (1, 2)


@pytest.mark.parametrize("auth", [None, ApiKey("uak_key"), ClientCredentials("id", "secret")])
def test_without_a_session_there_is_nothing_to_refresh(
    make_client: Make, service: HostileService, auth: Any
) -> None:
    with pytest.raises(UserApiError, match="no tokens to refresh"):
        make_client(auth).do(lambda api: api.auth.refresh())

    assert not service.requests


@pytest.mark.parametrize("code", ["token_revoked", "refresh_token_reused"])
def test_the_end_of_a_session_is_said_once_and_kept(
    make_client: Make, service: HostileService, code: str
) -> None:
    service.answer(ONE, accepting())
    service.reply(REFRESH, problem(401, code))
    client = make_client(Tokens("access-1", "refresh-1"))

    for _ in range(3):
        with pytest.raises(SessionEnded) as ended:
            client.do(lambda api: api.users.get(USER))
        assert ended.value.code == code

    assert (service.counts[ONE], service.counts[REFRESH]) == (1, 1)


def test_a_revoked_session_is_not_refreshed(make_client: Make, service: HostileService) -> None:
    service.answer(ONE, accepting(code="token_revoked"))
    client = make_client(Tokens("access-1", "refresh-1"))

    for _ in range(2):
        with pytest.raises(SessionEnded):
            client.do(lambda api: api.users.get(USER))

    assert (service.counts[ONE], service.counts[REFRESH]) == (1, 0)


def test_a_login_is_made_once_and_refreshed_before_its_end(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-1", "access-2"))
    service.reply(LOGIN, Reply(document={**pair(1, expires_in=0), "user": user()}))
    service.reply(REFRESH, Reply(document=pair(2)))
    client = make_client(Login("robin", "the-password"))

    for _ in range(3):
        client.do(lambda api: api.users.get(USER))

    assert (service.counts[LOGIN], service.counts[REFRESH]) == (1, 1)
    sent = [request.bearer for request in service.requests if request.path == ONE]
    assert sent == ["access-1", "access-2", "access-2"]


def test_a_token_that_still_lives_is_used_while_no_refresh_is_possible(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-1"))
    service.reply(LOGIN, Reply(document={**pair(1, expires_in=40), "user": user()}))
    client = make_client(Login("robin", "the-password"), retries=0)
    client.do(lambda api: api.users.get(USER))
    held: Any = client.client._session._held
    held.received_at -= 30
    service.reply(REFRESH, CUT)

    assert client.do(lambda api: api.users.get(USER)).id == USER
    assert service.counts[REFRESH] == 1


def test_a_new_password_continues_with_new_tokens(
    make_client: Make, service: HostileService
) -> None:
    service.answer(ONE, accepting("access-2", code="token_revoked"))
    service.reply("/api/v1/auth/change-password", Reply(document=pair(2)))
    client = make_client(Tokens("access-1", "refresh-1"))

    client.do(lambda api: api.auth.change_password("old", "new"))

    assert client.do(lambda api: api.users.get(USER)).id == USER


def issuing(service: HostileService, *, expires_in: int = 1800) -> Callable[[Request], Reply]:
    def behave(_: Request) -> Reply:
        number = service.counts[TOKEN]
        return Reply(
            document={"access_token": f"token-{number}", "expires_in": expires_in, "scope": "x"}
        )

    return behave


ACCOUNT = ClientCredentials("account", "secret", scope="users:read")


def test_many_callers_fetch_one_client_token(make_client: Make, service: HostileService) -> None:
    service.answer(TOKEN, issuing(service))
    service.answer(ONE, accepting("token-1"))
    client = make_client(ACCOUNT)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: client.do(lambda api: api.users.get(USER)), range(40)))

    assert service.counts[TOKEN] == 1
    sent = next(request for request in service.requests if request.path == TOKEN)
    assert b"scope=users%3Aread" in sent.body and b"secret" not in sent.body
    assert sent.headers["Authorization"].startswith("Basic ")


def test_a_refused_client_token_is_replaced_once_for_all(
    make_client: Make, service: HostileService
) -> None:
    service.answer(TOKEN, issuing(service))
    service.answer(ONE, accepting("token-1"))
    client = make_client(ACCOUNT)
    client.do(lambda api: api.users.get(USER))
    service.answer(ONE, accepting("token-2", code="token_revoked"))

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda _: client.do(lambda api: api.users.get(USER)), range(50)))

    assert service.counts[TOKEN] == 2


def test_a_lasting_refusal_costs_one_token(make_client: Make, service: HostileService) -> None:
    service.answer(TOKEN, issuing(service))
    service.answer(ONE, accepting("token-1"))
    client = make_client(ACCOUNT)
    client.do(lambda api: api.users.get(USER))
    service.answer(ONE, accepting(code="token_invalid"))

    for _ in range(5):
        with pytest.raises(Problem) as refused:
            client.do(lambda api: api.users.get(USER))
        assert refused.value.code == "token_invalid"

    assert service.counts[TOKEN] == 2


def test_a_client_token_is_renewed_before_its_end(
    make_client: Make, service: HostileService
) -> None:
    service.answer(TOKEN, issuing(service, expires_in=100))
    service.answer(ONE, accepting("token-1", "token-2"))
    client = make_client(ACCOUNT)
    client.do(lambda api: api.users.get(USER))
    held: Any = client.client._authentication._held

    held.received_at -= 79
    client.do(lambda api: api.users.get(USER))
    assert service.counts[TOKEN] == 1
    held.received_at -= 2
    client.do(lambda api: api.users.get(USER))
    assert service.counts[TOKEN] == 2


def test_a_wrong_secret_is_not_tried_again_at_once(
    make_client: Make, service: HostileService
) -> None:
    document = {"error": "invalid_client", "error_description": "The key has expired."}
    service.reply(TOKEN, Reply(status=401, document=document))
    client = make_client(ACCOUNT)

    for _ in range(3):
        with pytest.raises(OAuthError) as refused:
            client.do(lambda api: api.users.get(USER))
        assert str(refused.value) == "invalid_client: The key has expired."

    assert service.counts[TOKEN] == 1


def test_an_outage_of_the_token_endpoint_is_unavailable(
    make_client: Make, service: HostileService
) -> None:
    document = {"error": "temporarily_unavailable", "code": "service_unavailable"}
    service.reply(TOKEN, Reply(status=503, document=document))

    with pytest.raises(Unavailable):
        make_client(ACCOUNT, retries=1).do(lambda api: api.users.get(USER))

    assert service.counts[TOKEN] == 2


def test_no_error_contains_a_secret(
    service: HostileService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="userapi_client")
    secret = "s3cr3t-of-the-caller"
    texts = []
    service.reply(LOGIN, problem(401, "invalid_credentials"))
    service.reply(REFRESH, problem(401, "token_invalid"))
    service.answer(ONE, accepting())
    for auth in (
        Login("robin", secret),
        Tokens(secret, secret),
        ApiKey(secret),
        ClientCredentials("account", secret),
    ):
        with Client(service.url, auth, retries=0) as client:
            with pytest.raises(UserApiError) as error:
                client.users.get(USER)
            texts += [str(error.value), repr(error.value), repr(client)]

    assert [text for text in [*texts, caplog.text] if secret in text] == []


def test_a_closed_client_says_so(make_client: Make) -> None:
    client = make_client()
    client.do(lambda api: api.close())

    with pytest.raises(UserApiError, match="closed"):
        client.do(lambda api: api.users.get(USER))


def test_the_wait_between_tries_is_random() -> None:
    waits = set()
    for _ in range(20):
        retries = Retries(left=3, budget=30, is_repeatable=True)
        found = [retries.wait_after_error(httpx2.ReadError("cut")) for _ in range(4)]
        assert found[3] is None
        waits.add(found[2])
        assert all(wait is not None and 0 <= wait <= 0.4 for wait in found[:3])
    assert len(waits) > 1
