"""What every implementation of `LiveSessions` guarantees, each in a complete application.

Copies live for five minutes here, so a change that shows at once did not wait for one to expire.
Each session is looked up twice before a change: the second time from the copy, if there is one.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import update

from tests.support.client import JsonClient
from tests.support.clusters.topologies import Kind, Topology
from tests.support.polling import wait_until
from tests.support.users import PASSWORD, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.infrastructure.database import table_of, transaction
from userapi.infrastructure.rate_counters import RateCounter
from userapi.sessions.copy_store import Place, Versions
from userapi.sessions.models import UserSession
from userapi.sessions.status import LiveSession
from userapi.wiring.services import Services

NOBODY = UUID("01900000-0000-7000-8000-000000000000")


@pytest.fixture(
    params=[
        pytest.param(None, marks=pytest.mark.thorough),
        Kind.SERVER,
        pytest.param(Kind.CLUSTER, marks=pytest.mark.thorough),
        pytest.param(Kind.SENTINEL, marks=pytest.mark.thorough),
    ]
)
def store(
    request: pytest.FixtureRequest, topologies: Callable[[Kind], Topology]
) -> Iterator[Topology | None]:
    """Return a Redis of each kind, or none."""
    topology = topologies(request.param) if request.param else None
    yield topology
    if topology is not None:
        topology.empty()


@pytest.fixture
def app(store: Topology | None, make_app: Callable[..., Flask]) -> Flask:
    """Return an application that reads the database only, or Redis first."""
    app = make_app(REDIS_URL=store.url if store else "", SESSION_CACHE_SECONDS="300")
    if store is not None:
        rates: RateCounter = app.extensions["userapi"].rates
        wait_until(lambda: rates.hit("warm", seconds=1).count and store.scripts_run())
    return app


class Service:
    """The service, from the point of view of a caller of `LiveSessions`."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.services: Services = app.extensions["userapi"]

    def log_in(self, user: MadeUser, **body: object) -> SignedInClient:
        answer = JsonClient(self.app).post(
            "/api/v1/auth/login",
            json={"username": user.username, "password": user.password, **body},
        )
        return SignedInClient(self.app, answer.get_json())

    def find(
        self, session_id: str, user_id: str | UUID, *, session_version: int = 1
    ) -> LiveSession | None:
        """Look a session up twice; the results must be the same."""
        with self.app.app_context():
            first, second = (
                self.services.live_sessions.find(
                    UUID(session_id), user_id=UUID(str(user_id)), session_version=session_version
                )
                for _ in range(2)
            )
        assert first == second
        return second


@pytest.fixture
def service(app: Flask) -> Service:
    return Service(app)


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def boss(service: Service, make_user: MakeUser) -> SignedInClient:
    return service.log_in(make_user("boss", roles=["superadmin"]))


def test_a_live_session_has_all_that_a_request_needs(service: Service, robin: MadeUser) -> None:
    session_id = service.log_in(robin).session_id

    live = service.find(session_id, robin.id)

    assert live is not None
    assert (str(live.session_id), str(live.user_id)) == (session_id, robin.id)
    assert (live.username, live.roles) == ("robin", ("user",))
    assert (live.session_version, live.must_change_password) == (1, False)
    assert live.ends_at.utcoffset() is not None


def test_the_copy_is_read_and_not_the_database(
    service: Service, robin: MadeUser, store: Topology | None
) -> None:
    """Or the other tests of this module would prove nothing about Redis."""
    session_id = service.log_in(robin).session_id
    if store is None:
        assert service.find(session_id, robin.id)
        return

    wait_until(
        lambda: (
            service.find(session_id, robin.id)
            and any(copy.startswith(b"D") for copy in store.values("userapi:live:*").values())
        )
    )
    with service.app.app_context(), transaction() as database:
        ended = {"revoked_at": service.services.clock.now(), "revoked_reason": "revoked"}
        database.execute(update(table_of(UserSession)).values(ended))

    assert service.find(session_id, robin.id) is not None


@pytest.mark.parametrize("changed", ["owner", "catalogue", "ended"])
def test_a_copy_of_what_was_changed_meanwhile_is_rejected(
    service: Service, robin: MadeUser, store: Topology | None, changed: str
) -> None:
    """A process reads a row, another one changes it, and then the first one stores its copy."""
    copies = service.services.copies
    if copies is None:
        assert store is None
        return
    owner = UUID(robin.id)
    place = Place("session", "a-copy", owner)
    reads: list[object] = []

    def is_reserved() -> bool:
        # On a busy machine Redis may be given up for a moment.
        reads.append(copies.read(place, version=1))
        return isinstance(reads[-1], list)

    wait_until(is_reserved)
    placeholder = reads[-1]
    assert isinstance(placeholder, list)

    if changed == "owner":
        copies.owner_changed(owner, version=8)
    elif changed == "catalogue":
        copies.catalogue_changed(version=8)
    else:
        copies.ended([place])
    copies.fill(place, placeholder, Versions(own=1, owner=7, catalogue=7), b"outdated")

    found = copies.read(place, version=1)
    assert found == b"E" if changed == "ended" else isinstance(found, list)


def test_an_unknown_session_is_not_found(service: Service, robin: MadeUser) -> None:
    assert service.find(str(NOBODY), robin.id) is None


def test_a_session_has_its_own_user_whatever_user_is_given(
    service: Service, robin: MadeUser, make_user: MakeUser
) -> None:
    mallory = make_user("mallory")
    session_id = service.log_in(robin).session_id
    service.find(session_id, robin.id)

    live = service.find(session_id, mallory.id)

    assert live is not None and str(live.user_id) == robin.id


def test_an_ended_session_is_not_found(service: Service, robin: MadeUser) -> None:
    client, other = service.log_in(robin), service.log_in(robin)
    assert service.find(client.session_id, robin.id)

    client.post("/api/v1/auth/logout")

    assert service.find(client.session_id, robin.id) is None
    assert service.find(other.session_id, robin.id) is not None


def test_a_session_of_a_suspended_user_is_not_found(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    assert service.find(session_id, robin.id)

    boss.post(f"/api/v1/users/{robin.id}/suspend")

    assert service.find(session_id, robin.id) is None
    boss.post(f"/api/v1/users/{robin.id}/activate")
    assert service.find(session_id, robin.id) is None  # What has ended does not come back.


def test_a_session_of_a_deleted_user_is_not_found(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    assert service.find(session_id, robin.id)

    boss.delete(f"/api/v1/users/{robin.id}")

    assert service.find(session_id, robin.id) is None


def test_a_change_of_roles_is_visible(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    before = service.find(session_id, robin.id)

    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})

    after = service.find(session_id, robin.id)
    assert before is not None and after is not None
    assert after.roles == ("moderator",)
    assert after.access_version > before.access_version


def test_a_change_of_the_name_is_visible(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    service.find(session_id, robin.id)

    boss.patch(f"/api/v1/users/{robin.id}", json={"username": "hood"})

    live = service.find(session_id, robin.id)
    assert live is not None and live.username == "hood"


def test_a_required_password_change_is_visible(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    service.find(session_id, robin.id)

    boss.patch(f"/api/v1/users/{robin.id}", json={"must_change_password": True})

    live = service.find(session_id, robin.id)
    assert live is not None and live.must_change_password


def test_a_changed_role_increases_the_catalogue_version(
    service: Service, robin: MadeUser, boss: SignedInClient
) -> None:
    session_id = service.log_in(robin).session_id
    before = service.find(session_id, robin.id)

    made = boss.post("/api/v1/roles/", json={"name": "editor", "permissions": ["media:upload"]})

    assert made.status_code == 201
    after = service.find(session_id, robin.id)
    assert before is not None and after is not None
    assert after.catalogue_version == before.catalogue_version + 1


def test_a_changed_password_increases_the_session_version(
    service: Service, robin: MadeUser
) -> None:
    client = service.log_in(robin)
    service.find(client.session_id, robin.id)

    client.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"},
    )

    # Independent of the version in the first token.
    for session_version in (1, 2, 1):
        live = service.find(client.session_id, robin.id, session_version=session_version)
        assert live is not None and live.session_version == 2


@pytest.mark.parametrize(("remember_me", "days"), [(False, 7), (True, 7)])
def test_an_unused_session_expires(
    service: Service, robin: MadeUser, clock: ManualClock, remember_me: bool, days: int
) -> None:
    session_id = service.log_in(robin, remember_me=remember_me).session_id
    assert service.find(session_id, robin.id)

    clock.advance(days=days, seconds=1)

    assert service.find(session_id, robin.id) is None


def test_a_refresh_extends_a_session(service: Service, robin: MadeUser, clock: ManualClock) -> None:
    client = service.log_in(robin, remember_me=True)
    service.find(client.session_id, robin.id)
    clock.advance(days=6)
    refreshed = client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})

    clock.advance(days=2)

    assert refreshed.status_code == 200
    assert service.find(client.session_id, robin.id) is not None


def test_refreshes_do_not_extend_a_session_without_limit(
    service: Service, robin: MadeUser, clock: ManualClock
) -> None:
    client = service.log_in(robin, remember_me=True)
    token = client.refresh_token
    for _ in range(5):
        clock.advance(days=5)
        answer = client.post("/api/v1/auth/refresh", json={"refresh_token": token})
        token = answer.get_json()["refresh_token"]
    lives = service.find(client.session_id, robin.id)

    clock.advance(days=5)

    assert lives is not None
    assert service.find(client.session_id, robin.id) is None


def test_a_lookup_that_is_sent_with_the_rate_limit_finds_the_same(
    service: Service, robin: MadeUser
) -> None:
    session_id, user_id = UUID(service.log_in(robin).session_id), UUID(robin.id)
    known = service.find(str(session_id), user_id)
    live = service.services.live_sessions

    with service.app.app_context():
        lookup = live.lookup(session_id, user_id=user_id, session_version=1)
        reply = None
        if lookup is not None:
            condition = live.liveness(session_id, user_id=user_id, session_version=1)
            decided = service.services.rates.hit_if(
                user_id, seconds=60, condition=condition, after=lookup
            )
            assert decided.hit is not None and decided.is_met
            reply = decided.reply
        found = live.find(session_id, user_id=user_id, session_version=1, reply=reply)

    assert found == known
