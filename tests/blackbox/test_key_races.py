"""Concurrent uses of an API key that is revoked, on two workers: none succeeds afterwards."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier, Event

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import PASSWORD, Answer, RecordingClient

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


class KeyInUse:
    """A new API key that 50 threads use or end, all beginning at once."""

    def __init__(self, admin: RecordingClient, name: str) -> None:
        self._admin = admin
        account = admin.once("POST", ACCOUNTS, {"name": name, "roles": ["moderator"]}).body
        self._path = f"{ACCOUNTS}{account['id']}"
        self._key = admin.once("POST", f"{self._path}/api-keys/", {"name": "production"}).body
        self._barrier, self._used = Barrier(AT_ONCE), Event()
        self._ended_at: list[float] = []

    def use(self) -> list[Use]:
        """Use the key all the time, some times after it was ended as well."""
        client = self._admin.at(self._admin.base_url)
        client.token = self._key["key"]
        uses: list[Use] = []
        self._barrier.wait(60)
        while len(uses) < USES_BEFORE or len(self.after_end(uses)) < USES_AFTER:
            began_at = time.monotonic()
            answer = client.once("GET", VERIFY)
            uses.append(Use(began_at, answer.status, (answer.body or {}).get("code")))
            if answer.status == 200:
                self._used.set()
        return uses

    def end(self, end: str) -> Answer:
        """End the key after its first use; return the answer."""
        method, path, body = ENDS[end]
        client = self._admin.at(self._admin.base_url)
        self._barrier.wait(60)
        assert self._used.wait(60), "the key has never passed"
        answer = client.once(method, path.format(account=self._path, key=self._key["id"]), body)
        if answer.status in (200, 201, 204):
            self._ended_at.append(time.monotonic())
        return answer

    def after_end(self, uses: list[Use]) -> list[Use]:
        """Return the uses that began after the answer that ended the key."""
        ended_at = self._ended_at
        return [use for use in uses if ended_at and use.began_at > ended_at[0]]


@pytest.mark.thorough
@pytest.mark.parametrize("end", ENDS)
def test_a_key_passes_nowhere_after_the_answer_that_ended_it(
    admin: RecordingClient, end: str
) -> None:
    """49 use the key all the time, and one ends it."""
    key = KeyInUse(admin, f"robot-{end}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        using = [pool.submit(key.use) for _ in range(AT_ONCE - 1)]
        status = pool.submit(key.end, end).result(120).status
        uses = [use for future in using for use in future.result(120)]

    assert status in (200, 201, 204)
    # The key of a deleted account is unknown.
    refused = "token_invalid" if end == "deletion" else "token_revoked"
    assert {use.status for use in uses} == {200, 401}
    assert {(use.status, use.code) for use in key.after_end(uses)} == {(401, refused)}


@pytest.mark.thorough
def test_no_revoked_key_is_accepted_during_concurrent_rotations_and_revocations(
    admin: RecordingClient,
) -> None:
    """Of 50 at once, 16 rotate the key, 16 revoke it, and the others use it all the time."""
    key = KeyInUse(admin, "robot-all")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        using = [pool.submit(key.use) for _ in range(AT_ONCE - 32)]
        rotations = [pool.submit(key.end, "rotation") for _ in range(16)]
        revocations = [pool.submit(key.end, "revocation") for _ in range(16)]
        rotated = [future.result(120) for future in rotations]
        revoked = [future.result(120) for future in revocations]
        uses = [use for future in using for use in future.result(120)]

    assert {answer.status for answer in rotated} <= {201, 404, 409}
    assert {answer.status for answer in revoked} <= {204, 404}
    successors = [answer.body["key"] for answer in rotated if answer.status == 201]
    assert len(successors) <= 1
    assert {use.status for use in uses} == {200, 401}
    assert {(use.status, use.code) for use in key.after_end(uses)} == {(401, "token_revoked")}
    for text in successors:
        assert text
        assert RecordingClient(admin.base_url, token=text).once("GET", VERIFY).status == 200
