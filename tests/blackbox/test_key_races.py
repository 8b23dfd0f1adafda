"""Many use one API key while it ends, on two workers of Gunicorn: none succeeds afterwards."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier, Event

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import PASSWORD, RecordingClient

ACCOUNTS = "/api/v1/service-accounts/"
VERIFY = "/api/v1/auth/verify"
AT_ONCE = 50
# Each on a connection of its own, so that both workers certainly serve some.
USES_BEFORE, USES_AFTER = 4, 4


@dataclass(frozen=True, slots=True)
class Use:
    """One request with the key."""

    began_at: float
    status: int
    code: str | None


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def admin(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], PostgresDatabase],
    redis_url: str,
) -> Iterator[RecordingClient]:
    """Return an administrator of a service with two workers."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "2",
    }
    if request.param == "postgresql":
        environment |= {"DATABASE_URL": make_database("keys").url, "REDIS_URL": redis_url}
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        client = RecordingClient(service.base_url)
        client.log_in("admin")
        yield client


ENDS = {
    "revocation": ("DELETE", "{account}/api-keys/{key}", None),
    "rotation": ("POST", "{account}/api-keys/{key}/rotate", {"overlap_seconds": 0}),
    "suspension": ("POST", "{account}/suspend", {"reason": "a trial"}),
    "deletion": ("DELETE", "{account}", None),
}


@pytest.mark.thorough
@pytest.mark.parametrize("end", ENDS)
def test_a_key_passes_nowhere_after_the_answer_that_ended_it(
    admin: RecordingClient, end: str
) -> None:
    """49 use the key all the time, and one ends it."""
    account = admin.once("POST", ACCOUNTS, {"name": f"robot-{end}", "roles": ["moderator"]}).body
    path = f"{ACCOUNTS}{account['id']}"
    key = admin.once("POST", f"{path}/api-keys/", {"name": "production"}).body
    method, ending, body = ENDS[end]
    ended_at: list[float] = []
    barrier, used = Barrier(AT_ONCE), Event()

    def use_all_the_time() -> list[Use]:
        client = RecordingClient(admin.base_url, token=key["key"])
        uses: list[Use] = []
        barrier.wait(60)
        while len(uses) < USES_BEFORE or len(after(uses)) < USES_AFTER:
            began_at = time.monotonic()
            answer = client.once("GET", VERIFY)
            uses.append(Use(began_at, answer.status, (answer.body or {}).get("code")))
            if answer.status == 200:
                used.set()
        return uses

    def after(uses: list[Use]) -> list[Use]:
        return [use for use in uses if ended_at and use.began_at > ended_at[0]]

    def end_it() -> int:
        barrier.wait(60)
        assert used.wait(60), "the key has never passed"
        answer = admin.once(method, ending.format(account=path, key=key["id"]), body)
        ended_at.append(time.monotonic())
        return answer.status

    with ThreadPoolExecutor(AT_ONCE) as pool:
        using = [pool.submit(use_all_the_time) for _ in range(AT_ONCE - 1)]
        status = pool.submit(end_it).result(120)
        uses = [use for future in using for use in future.result(120)]

    assert status in (200, 201, 204)
    # The key of a deleted account is unknown.
    refused = "token_invalid" if end == "deletion" else "token_revoked"
    assert {use.status for use in uses} == {200, 401}
    assert {(use.status, use.code) for use in after(uses)} == {(401, refused)}


@pytest.mark.thorough
def test_rotations_revocations_and_uses_at_once_let_no_dead_key_pass(
    admin: RecordingClient,
) -> None:
    """Of 50 at once, 16 rotate the key, 16 revoke it, and the others use it all the time."""
    account = admin.once("POST", ACCOUNTS, {"name": "robot-all", "roles": ["moderator"]}).body
    path = f"{ACCOUNTS}{account['id']}"
    key = admin.once("POST", f"{path}/api-keys/", {"name": "production"}).body
    ended_at: list[float] = []
    barrier, used = Barrier(AT_ONCE), Event()

    def use_all_the_time() -> list[Use]:
        client = RecordingClient(admin.base_url, token=key["key"])
        uses: list[Use] = []
        barrier.wait(60)
        while len(uses) < USES_BEFORE or len(after(uses)) < USES_AFTER:
            began_at = time.monotonic()
            answer = client.once("GET", VERIFY)
            uses.append(Use(began_at, answer.status, (answer.body or {}).get("code")))
            if answer.status == 200:
                used.set()
        return uses

    def after(uses: list[Use]) -> list[Use]:
        return [use for use in uses if ended_at and use.began_at > ended_at[0]]

    def end_it(end: str) -> tuple[int, str | None]:
        method, ending, body = ENDS[end]
        client = RecordingClient(admin.base_url, token=admin.token)
        barrier.wait(60)
        assert used.wait(60), "the key has never passed"
        answer = client.once(method, ending.format(account=path, key=key["id"]), body)
        if answer.status in (201, 204):
            ended_at.append(time.monotonic())
        return answer.status, (answer.body or {}).get("key")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        using = [pool.submit(use_all_the_time) for _ in range(AT_ONCE - 32)]
        rotations = [pool.submit(end_it, "rotation") for _ in range(16)]
        revocations = [pool.submit(end_it, "revocation") for _ in range(16)]
        rotated = [future.result(120) for future in rotations]
        revoked = [future.result(120) for future in revocations]
        uses = [use for future in using for use in future.result(120)]

    assert {status for status, _ in rotated} <= {201, 404, 409}
    assert {status for status, _ in revoked} <= {204, 404}
    successors = [text for status, text in rotated if status == 201]
    assert len(successors) <= 1
    assert {use.status for use in uses} == {200, 401}
    assert {(use.status, use.code) for use in after(uses)} == {(401, "token_revoked")}
    for text in successors:
        assert text
        assert RecordingClient(admin.base_url, token=text).once("GET", VERIFY).status == 200
