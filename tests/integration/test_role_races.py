"""Changes of roles that race one another, for real and on PostgreSQL."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask
from sqlalchemy import Connection, select, text

from tests.support.polling import wait_until
from tests.support.users import MakeUser
from userapi.actor import Actor, ActorType, system_actor
from userapi.errors import ServiceError
from userapi.infrastructure.database import db, new_id, reading
from userapi.permissions import PermissionSet
from userapi.roles.definitions import RoleDefinition
from userapi.roles.models import UserRole
from userapi.wiring.services import Services

ACTOR = system_actor("tests")
ROUNDS = 12


def race(app: Flask, *steps: Callable[[], object]) -> list[str]:
    """Run all at the same moment; return the code of each refusal, in order of the steps."""
    barrier = Barrier(len(steps))

    def run(step: Callable[[], object]) -> str:
        with app.app_context():
            barrier.wait()
            try:
                step()
            except ServiceError as exc:
                return exc.code
            return "done"

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, steps))


@pytest.fixture
def add(app: Flask, services: Services) -> Callable[..., None]:
    def add(name: str, parents: Sequence[str] = ()) -> None:
        with app.app_context():
            services.role_editor.create(
                RoleDefinition(name=name, parents=tuple(parents)), actor=ACTOR
            )

    return add


@pytest.mark.thorough
def test_two_changes_at_once_never_close_a_circle(
    app: Flask, services: Services, add: Callable[..., None]
) -> None:
    for number in range(ROUNDS):
        left, right = f"left{number}", f"right{number}"
        add(left)
        add(right)

        outcomes = race(
            app,
            lambda: services.role_editor.change(left, {"parents": [right]}, actor=ACTOR),
            lambda: services.role_editor.change(right, {"parents": [left]}, actor=ACTOR),
        )

        assert sorted(outcomes) == ["done", "role_cycle"]


@pytest.mark.thorough
def test_a_longer_circle_is_not_closed_either(
    app: Flask, services: Services, add: Callable[..., None]
) -> None:
    for number in range(ROUNDS):
        names = [f"role{number}-{step}" for step in range(4)]
        for name in names:
            add(name)

        outcomes = race(
            app,
            *(
                lambda name=name, parent=parent: services.role_editor.change(
                    name, {"parents": [parent]}, actor=ACTOR
                )
                for name, parent in zip(names, names[1:] + names[:1], strict=True)
            ),
        )

        assert sorted(outcomes) == ["done", "done", "done", "role_cycle"]


def test_of_many_creations_of_one_name_one_succeeds(app: Flask, services: Services) -> None:
    outcomes = race(
        app,
        *[lambda: services.role_editor.create(RoleDefinition(name="once"), actor=ACTOR)] * 6,
    )

    assert sorted(outcomes) == ["done"] + ["role_name_taken"] * 5


def test_a_role_is_not_deleted_while_it_is_given(
    app: Flask, services: Services, add: Callable[..., None], make_user: MakeUser
) -> None:
    robin = make_user("robin")
    with app.app_context():
        user_id = services.accounts.get_by_name(robin.username).id
    for number in range(ROUNDS):
        name = f"role{number}"
        add(name)

        given, deleted = race(
            app,
            lambda: services.role_assignment.set_roles(user_id, [name], actor=ACTOR),
            lambda: services.role_editor.delete(name, actor=ACTOR),
        )

        assert (given, deleted) in {("done", "role_in_use"), ("validation_failed", "done")}


@pytest.mark.thorough
def test_a_role_does_not_lose_a_parent_that_is_being_deleted(
    app: Flask, services: Services, add: Callable[..., None]
) -> None:
    for number in range(ROUNDS):
        parent, child = f"parent{number}", f"child{number}"
        add(parent)

        added, deleted = race(
            app,
            lambda: services.role_editor.create(
                RoleDefinition(name=child, parents=(parent,)), actor=ACTOR
            ),
            lambda: services.role_editor.delete(parent, actor=ACTOR),
        )

        assert (added, deleted) in {("done", "role_in_use"), ("validation_failed", "done")}


def test_a_role_given_while_the_status_changes_knows_the_new_status(
    app: Flask, make_user: MakeUser
) -> None:
    """Both past the service, which locks the user before either."""
    robin = make_user("robin")
    giving = text("INSERT INTO user_roles (user_id, role_name) VALUES (:id, 'moderator')")

    def give() -> None:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(giving, {"id": robin.id})

    with app.app_context(), ThreadPoolExecutor(1) as pool:
        with db.engine.begin() as connection:
            connection.execute(
                text("UPDATE users SET status = 'suspended' WHERE id = :id"), {"id": robin.id}
            )
            given = pool.submit(give)
            wait_until(lambda: _waiting_for_locks(connection) > 0)
        given.result()
        with reading() as connection:
            copies = connection.execute(
                select(UserRole.role_name, UserRole.user_status).order_by(UserRole.role_name)
            ).all()

    assert copies == [("moderator", "suspended"), ("user", "suspended")]


def _waiting_for_locks(connection: Connection) -> int:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return int(connection.execute(query).scalar_one())


@pytest.mark.thorough
def test_two_changes_at_once_do_not_take_what_neither_may_take(
    app: Flask, services: Services, make_user: MakeUser
) -> None:
    """Each role alone may lose the permission, since the user keeps it by the other one."""
    keeper = Actor(
        type=ActorType.USER,
        id=new_id(),
        permissions=PermissionSet(["roles:manage", "users:read", "users:suspend"]),
    )
    for number in range(ROUNDS):
        names = [f"left{number}", f"right{number}"]
        with app.app_context():
            for name in names:
                services.role_editor.create(
                    RoleDefinition(name=name, permissions=("users:suspend",)), actor=ACTOR
                )
            services.role_editor.create(
                RoleDefinition(name=f"chief{number}", permissions=("users:delete",)), actor=ACTOR
            )
        make_user(f"captain{number}", roles=[*names, f"chief{number}"])

        outcomes = race(
            app,
            *(
                lambda name=name: services.role_editor.change(
                    name, {"permissions": []}, actor=keeper
                )
                for name in names
            ),
        )

        assert sorted(outcomes) == ["done", "insufficient_rank"]
