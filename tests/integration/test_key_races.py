"""API keys under concurrency, under load and in outages, and with two processes: no dead key passes
after the answer that killed it, limits are exact, and a key costs no query.

The other process is another application on the same database and Redis. Copies live for five
minutes, so no test depends on the expiry of one.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event
from typing import Any

import psycopg2
import pytest
import redis
from flask import Flask
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from tests.integration.test_races import waits_for_a_lock
from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import audit_rows, events
from tests.support.machines import (
    ACCOUNTS,
    OWN_KEYS,
    MadeService,
    basic,
    code_of,
    make_key,
    make_service,
    wrong_secret,
)
from tests.support.polling import wait_until
from tests.support.proxy import proxy_to, url_through
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, reading, table_of
from userapi.machines.models import ApiKey
from userapi.wiring.services import Services

pytestmark = pytest.mark.thorough

VERIFY = "/api/v1/auth/verify"
TOKEN = "/api/v1/auth/token"
LONG = {"SESSION_CACHE_SECONDS": "300"}
# Of a job that sends more than 80 in a second.
MANY_REQUESTS = 5000
MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(**LONG)


@pytest.fixture
def elsewhere(make_app: MakeApp) -> Flask:
    """Return another process of the same service."""
    return make_app(**LONG)


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


@pytest.fixture
def service(boss: SignedInClient) -> MadeService:
    return make_service(boss, roles=["moderator"])


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def at_once(number: int, call: Callable[[int], Any]) -> list[Any]:
    """Return the results of calls that begin together."""
    barrier = Barrier(number)

    def begin(index: int) -> Any:
        barrier.wait()
        return call(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


def status(app: Flask, token: str) -> int:
    return int(JsonClient(app, token=token).get(VERIFY).status_code)


def token_for(app: Flask, service: MadeService) -> str | None:
    body = {
        "grant_type": "client_credentials",
        "client_id": service.id,
        "client_secret": service.key.text,
    }
    answer = JsonClient(app).post(TOKEN, json=body)
    return str(answer.get_json()["access_token"]) if answer.status_code == 200 else None


def test_of_50_rotations_at_once_one_succeeds(
    app: Flask, elsewhere: Flask, boss: SignedInClient, service: MadeService
) -> None:
    """With revocations and uses in between, on two processes."""
    administrators = [JsonClient(each, token=boss.token) for each in (app, elsewhere)]
    path = f"{service.key.path}/rotate"

    def act(index: int) -> tuple[str, int]:
        client = administrators[index % 2]
        if index < 25:
            answer = client.post(path, json={"overlap_seconds": 0})
            return "rotated", int(answer.status_code)
        return "used", status((app, elsewhere)[index % 2], service.key.text)

    counts = Counter(at_once(50, act))

    assert counts["rotated", 201] == 1
    assert counts["rotated", 409] == 24
    assert {code for kind, code in counts if kind == "used"} <= {200, 401}
    for each in (app, elsewhere):
        assert status(each, service.key.text) == 401


@pytest.mark.parametrize("kind", ["key", "token"])
def test_no_request_passes_after_the_answer_that_revoked_the_key(
    app: Flask, elsewhere: Flask, boss: SignedInClient, service: MadeService, kind: str
) -> None:
    token = service.key.text if kind == "key" else token_for(app, service)
    assert token is not None
    revoked, stop, late = Event(), Event(), []

    def use(index: int) -> None:
        each = (app, elsewhere)[index % 2]
        while not stop.is_set():
            was_revoked = revoked.is_set()
            if status(each, token) == 200 and was_revoked:
                late.append(index)

    with ThreadPoolExecutor(8) as pool:
        uses = [pool.submit(use, index) for index in range(8)]
        for _ in range(20):
            status(elsewhere, token)
        boss.delete(service.key.path)
        revoked.set()
        for _ in range(50):
            assert status(app, token) == status(elsewhere, token) == 401
        stop.set()
        for each in uses:
            each.result()

    assert late == []


@pytest.mark.parametrize("action", ["create", "rotate"])
def test_of_repeated_requests_at_once_all_receive_one_key(
    app: Flask, elsewhere: Flask, boss: SignedInClient, service: MadeService, action: str
) -> None:
    """A client that repeats a request does not know whether the first one has ended."""
    administrators = [JsonClient(each, token=boss.token) for each in (app, elsewhere)]
    path = service.keys_path if action == "create" else f"{service.key.path}/rotate"
    body = {"name": "deploy"} if action == "create" else {"overlap_seconds": 0}
    headers = {"Idempotency-Key": "deploy-1"}

    answers = at_once(12, lambda n: administrators[n % 2].post(path, json=body, headers=headers))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.get_json()["key"] for answer in answers}) == 1
    replayed = [answer for answer in answers if "Idempotent-Replay" in answer.headers]
    assert len(replayed) == 11
    listed = boss.get(service.keys_path).get_json()["items"]
    assert len(listed) == 2


def test_of_workers_at_once_one_sends_the_notice_of_an_end(
    app: Flask, elsewhere: Flask, service: MadeService, clock: ManualClock
) -> None:
    clock.advance(days=359)

    def notify(index: int) -> int:
        each = (app, elsewhere)[index % 2]
        services: Services = each.extensions["userapi"]
        with each.app_context():
            return services.key_expiry.notify_due(10)

    assert sorted(at_once(6, notify)) == [0] * 5 + [1]
    (notice,) = events(app, type_="api_key.expiring")
    assert (notice.subject, notice.data["key_id"]) == (service.id, service.key.id)


def test_the_limit_of_active_keys_is_exact(make_app: MakeApp, boss: SignedInClient) -> None:
    app = make_app(API_KEY_MAX_PER_OWNER="3")
    client = JsonClient(app, token=boss.token)

    answers = at_once(12, lambda _: client.post(OWN_KEYS, json={"name": "x"}).status_code)

    assert Counter(answers) == {201: 3, 409: 9}


def test_of_accounts_with_one_name_one_is_created(app: Flask, boss: SignedInClient) -> None:
    client = JsonClient(app, token=boss.token)

    answers = at_once(10, lambda _: client.post(ACCOUNTS, json={"name": "robot"}).status_code)

    assert Counter(answers) == {201: 1, 409: 9}


def test_no_token_of_before_a_suspension_passes_after_it(
    app: Flask, boss: SignedInClient, service: MadeService
) -> None:
    """Requests for tokens run during the suspension: a token issued before it is invalid."""

    def act(index: int) -> str | None:
        if index == 5:
            boss.post(f"{service.path}/suspend")
            return None
        return token_for(app, service)

    tokens = [token for token in at_once(12, act) if token is not None]
    assert boss.post(f"{service.path}/activate").status_code == 200

    assert [token for token in tokens if status(app, token) == 200] == []


def test_a_process_that_cannot_reach_redis_sees_the_revocation(
    make_app: MakeApp, boss: SignedInClient, service: MadeService, redis_url: str
) -> None:
    with proxy_to(redis_url) as proxy:
        alone = make_app(REDIS_URL=url_through(proxy, redis_url), **LONG)
        assert status(alone, service.key.text) == 200
        proxy.refuse()

        boss.delete(service.key.path)

        assert status(alone, service.key.text) == 401


@pytest.mark.parametrize("emptied", [False, True])
def test_revoked_keys_and_tokens_stay_revoked(
    app: Flask,
    elsewhere: Flask,
    boss: SignedInClient,
    service: MadeService,
    server: redis.Redis,
    emptied: bool,
) -> None:
    token, other = token_for(app, service), token_for(app, service)
    spare = make_key(boss, service.keys_path)
    assert token is not None and other is not None
    assert [status(each, t) for each in (app, elsewhere) for t in (token, spare.text)] == [200] * 4

    JsonClient(app).post("/api/v1/auth/revoke", json={"token": token})
    boss.delete(spare.path)
    if emptied:
        server.flushdb()

    for each in (app, elsewhere):
        assert [status(each, t) for t in (token, spare.text)] == [401, 401]
        assert [status(each, t) for t in (other, service.key.text)] == [200, 200]


def test_a_stale_copy_of_a_key_is_not_read(
    app: Flask, elsewhere: Flask, boss: SignedInClient, service: MadeService, server: redis.Redis
) -> None:
    """A copy that an invalidation did not reach: only the version of the account is newer."""
    assert status(elsewhere, service.key.text) == 200
    (name,) = [key for key in server.keys("userapi:live:{*}:k:*")]
    copy = server.get(name)
    assert isinstance(copy, bytes) and copy.startswith(b"D")

    boss.post(f"{service.path}/suspend")
    server.set(name, copy)

    assert code_of(JsonClient(elsewhere, token=service.key.text).get(VERIFY)) == (
        401,
        "token_revoked",
    )


def test_neither_keys_nor_tokens_are_in_redis_or_found_by_a_wrong_secret(
    app: Flask, service: MadeService, server: redis.Redis
) -> None:
    token = token_for(app, service)
    assert token is not None
    assert status(app, service.key.text) == status(app, token) == 200

    assert status(app, wrong_secret(service.key.text)) == 401
    names = [name for name in server.keys("*") if isinstance(name, bytes)]
    stored = b"".join([*names, *(bytes(server.dump(name) or b"") for name in names)])
    assert service.key.text.encode() not in stored
    assert token.encode() not in stored


def test_a_key_costs_one_round_trip_to_redis_and_no_query(
    deployment: Deployment, make_app: MakeApp, boss: SignedInClient, redis_url: str
) -> None:
    service = make_service(boss, roles=["moderator"])
    url = deployment.database.url
    with proxy_to(url) as database, proxy_to(redis_url) as store:
        app = make_app(
            DATABASE_URL=url_through(database, url),
            REDIS_URL=url_through(store, redis_url),
            RATE_LIMIT_ENABLED="true",
        )
        token = token_for(app, service)
        assert token is not None
        for credential in (service.key.text, token):
            for _ in range(3):
                assert status(app, credential) == 200
            before = database.round_trips, store.round_trips
            assert status(app, credential) == 200
            assert (database.round_trips - before[0], store.round_trips - before[1]) == (0, 1)


def test_a_key_costs_one_query_without_redis(
    deployment: Deployment, make_app: MakeApp, boss: SignedInClient
) -> None:
    service = make_service(boss, roles=["moderator"])
    url = deployment.database.url
    with proxy_to(url) as database:
        app = make_app(
            DATABASE_URL=url_through(database, url), REDIS_URL="", RATE_LIMIT_ENABLED="true"
        )
        for _ in range(3):
            assert status(app, service.key.text) == 200
        before = database.round_trips
        assert status(app, service.key.text) == 200
        assert database.round_trips - before == 1


def test_a_job_may_send_5000_requests_a_minute(make_app: MakeApp, service: MadeService) -> None:
    """A limit for people would stop it."""
    app = make_app(RATE_LIMIT_ENABLED="true", **LONG)

    answers = Counter(status(app, service.key.text) for _ in range(MANY_REQUESTS))

    assert answers == {200: MANY_REQUESTS}


def test_an_outage_is_an_error_of_oauth(
    deployment: Deployment, make_app: MakeApp, service: MadeService
) -> None:
    """A client that got a challenge would drop its secret as wrong (RFC 6749 §5.2)."""
    url = deployment.database.url
    body = {
        "grant_type": "client_credentials",
        "client_id": service.id,
        "client_secret": service.key.text,
    }
    with proxy_to(url) as database:
        app = make_app(DATABASE_URL=url_through(database, url), REDIS_URL="")
        assert JsonClient(app).post(TOKEN, json=body).status_code == 200
        database.refuse()

        answer = JsonClient(app).post(TOKEN, json=body)

    told = answer.get_json()
    assert (answer.status_code, answer.content_type) == (503, "application/json")
    assert (told["error"], told["code"]) == ("temporarily_unavailable", "service_unavailable")
    assert told["error_description"] and told["correlation_id"]
    assert int(answer.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in answer.headers


def test_a_key_whose_row_is_locked_works(
    deployment: Deployment, app: Flask, service: MadeService
) -> None:
    """A change of the key that waits for another must not delay its holder."""
    with closing(psycopg2.connect(deployment.database.url)) as other:
        other.cursor().execute("SELECT 1 FROM api_keys WHERE id = %s FOR UPDATE", (service.key.id,))

        assert status(app, service.key.text) == 200

    with app.app_context(), reading() as connection:
        used = connection.execute(select(table_of(ApiKey).c.last_used_at)).scalars().all()
    assert used == [None]


def test_a_key_works_although_its_use_cannot_be_recorded(app: Flask, service: MadeService) -> None:
    failed: list[str] = []

    def refuse(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE api_keys"):
            failed.append(statement)
            raise OperationalError(statement, None, Exception("read-only"))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", refuse)
    try:
        answers = [status(app, service.key.text) for _ in range(3)]
    finally:
        event.remove(engine, "before_cursor_execute", refuse)

    assert answers == [200] * 3
    assert len(failed) == 1


@pytest.mark.parametrize("kind", ["refusal", "token"])
def test_a_key_that_is_deleted_meanwhile_is_refused(
    make_app: MakeApp, deployment: Deployment, boss: SignedInClient, kind: str
) -> None:
    """The row that refers to it was not accepted, and the request was a 500."""
    names = [f"media:action-{number:03}" for number in range(60)]
    boss.post("/api/v1/roles/", json={"name": "media", "permissions": names})
    service = make_service(boss, "robot", roles=["media"])
    app = make_app(JWT_MAX_BYTES="500", **LONG)
    table = "api_key_refusals" if kind == "refusal" else "client_tokens"
    deletions: list[Any] = []

    def delete(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(f"INSERT INTO {table}") and not deletions:
            deletions.append(background.submit(boss.delete, service.path))
            wait_until(lambda: deletions[0].done() or waits_for_a_lock(deployment))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", delete)
    try:
        with ThreadPoolExecutor(1) as background:
            if kind == "refusal":
                code = status(app, wrong_secret(service.key.text))
            else:
                body = {"grant_type": "client_credentials", "scope": " ".join(names)}
                headers = basic(service.id, service.key.text)
                code = JsonClient(app).post(TOKEN, json=body, headers=headers).status_code
            deleted = deletions[0].result()
    finally:
        event.remove(engine, "before_cursor_execute", delete)

    # The request came before the deletion, which waits until its rows are written.
    assert (code, deleted.status_code) == (401 if kind == "refusal" else 200, 204)
    assert status(app, service.key.text) == 401


def test_many_refusals_leave_one_audit_row(
    app: Flask, elsewhere: Flask, boss: SignedInClient, service: MadeService
) -> None:
    """An attacker with a dead key could fill the log."""
    boss.delete(service.key.path)

    answers = at_once(20, lambda n: [status((app, elsewhere)[n % 2], service.key.text)] * 5)

    assert {code for each in answers for code in each} == {401}
    assert len(audit_rows(app, action="auth.key_refused")) == 1


def test_many_uses_write_once(app: Flask, elsewhere: Flask, service: MadeService) -> None:
    """A write for each request would lock the row of the key."""
    written: list[str] = []

    def count(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE api_keys") and cursor.rowcount > 0:
            written.append(statement)

    engines = []
    for each in (app, elsewhere):
        with each.app_context():
            engines.append(db.engine)
            event.listen(db.engine, "after_cursor_execute", count)
    try:
        answers = at_once(20, lambda n: [status((app, elsewhere)[n % 2], service.key.text)] * 10)
    finally:
        for engine in engines:
            event.remove(engine, "after_cursor_execute", count)

    assert {code for each in answers for code in each} == {200}
    assert len(written) == 1
