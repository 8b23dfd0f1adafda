"""Requests for the own profile are served from the copy of the live session, never with old data.

The other process is another application on the same database and Redis. Copies live for five
minutes, so nothing here has waited for one to run out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.views import MAX_PROFILE_BYTES
from userapi.clock import ManualClock

pytestmark = pytest.mark.thorough

API = "/api/v1"
LONG = {"SESSION_CACHE_SECONDS": "300", "LOCKOUT_THRESHOLD": "1"}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """Return the process in which users are changed."""
    return make_app(**LONG)


@pytest.fixture
def elsewhere(make_app: Callable[..., Flask]) -> Flask:
    """Return another process of the same service."""
    return make_app(**LONG)


@dataclass(frozen=True, slots=True)
class Scene:
    """Robin, who reads a profile in another process, and the administrator who changes it here."""

    app: Flask
    elsewhere: Flask
    clock: ManualClock
    boss: SignedInClient
    robin: MadeUser
    session: SignedInClient

    def seen_elsewhere(self, path: str = "/users/me") -> dict[str, Any]:
        """Return what robin sees in the other process."""
        answer = JsonClient(self.elsewhere, token=self.session.access_token).get(API + path)
        assert answer.status_code == 200, answer.text
        seen: dict[str, Any] = answer.get_json() | {"etag": answer.headers.get("ETag")}
        return seen

    def in_the_database(self) -> dict[str, Any]:
        """Return what an administrator sees, who is never shown a copy."""
        answer = self.boss.get(f"{API}/users/{self.robin.id}")
        seen: dict[str, Any] = answer.get_json() | {"etag": answer.headers["ETag"]}
        return seen

    def fail_to_log_in(self) -> None:
        """Lock robin's name."""
        credentials = {"username": self.robin.username, "password": "not-the-password-1"}
        JsonClient(self.app).post(f"{API}/auth/login", json=credentials)

    def change(self, **fields: Any) -> None:
        """Change robin as an administrator."""
        answer = self.boss.patch(f"{API}/users/{self.robin.id}", json=fields)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def scene(
    app: Flask, elsewhere: Flask, clock: ManualClock, make_user: MakeUser, log_in: LogIn
) -> Scene:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    robin = make_user("robin")
    return Scene(app, elsewhere, clock, boss, robin, log_in(robin))


def change_own_profile(scene: Scene) -> None:
    scene.session.patch(f"{API}/users/me", json={"first_name": "Robin"})


def log_in_once_more(scene: Scene) -> None:
    scene.clock.advance(seconds=30)
    credentials = {"username": scene.robin.username, "password": PASSWORD}
    assert JsonClient(scene.app).post(f"{API}/auth/login", json=credentials).status_code == 200


def unlock(scene: Scene) -> None:
    scene.fail_to_log_in()
    scene.seen_elsewhere()
    scene.boss.post(f"{API}/users/{scene.robin.id}/unlock", json={})


def change_address(scene: Scene) -> None:
    body = {"new_email": "new@example.com", "current_password": PASSWORD}
    scene.session.post(f"{API}/auth/change-email", json=body)
    token = Mailbox(scene.app).token()
    assert (
        JsonClient(scene.app).post(f"{API}/auth/verify-email", json={"token": token}).status_code
        == 204
    )


CHANGES: dict[str, Callable[[Scene], None]] = {
    "own profile": change_own_profile,
    "username": lambda scene: scene.change(username="robina"),
    "e-mail": lambda scene: scene.change(email="robina@example.com"),
    "metadata": lambda scene: scene.change(metadata={"team": "vision"}),
    "roles": lambda scene: scene.change(roles=["moderator"]),
    "log-in": log_in_once_more,
    "lock": Scene.fail_to_log_in,
    "unlock": unlock,
    "address by mail": change_address,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows_in_every_process_with_the_next_request(scene: Scene, name: str) -> None:
    before = scene.seen_elsewhere()
    assert before == scene.in_the_database()

    CHANGES[name](scene)

    after = scene.seen_elsewhere()
    assert after == scene.in_the_database()
    if name != "unlock":
        assert after != before
    whoami = scene.seen_elsewhere("/auth/me")
    assert {key: whoami[key] for key in after if key != "etag"}.items() <= after.items()


def test_a_lock_that_ends_is_no_longer_shown(scene: Scene) -> None:
    scene.fail_to_log_in()
    assert scene.seen_elsewhere()["locked_until"] is not None

    scene.clock.advance(minutes=6)

    assert scene.seen_elsewhere()["locked_until"] is None


def test_a_long_profile_is_not_kept_and_shown_all_the_same(scene: Scene, redis_url: str) -> None:
    metadata = {f"key{number}": "x" * 100 for number in range(MAX_PROFILE_BYTES // 100)}
    scene.change(metadata=metadata)

    assert scene.seen_elsewhere()["metadata"] == metadata
    assert scene.seen_elsewhere("/auth/me")["metadata"] == metadata
