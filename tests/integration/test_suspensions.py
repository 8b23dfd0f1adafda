"""Temporary suspensions, which the worker lifts."""

from datetime import timedelta

import pytest
from flask import Flask

from tests.support.facts import audit_rows, events
from tests.support.users import MakeUser
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases


def test_expired_suspensions_are_lifted(
    app: Flask, services: Services, clock: ManualClock, make_user: MakeUser
) -> None:
    with app.app_context():
        for number, hours in enumerate([1, 2, None]):
            make_user(f"robin{number}")
            services.account_suspension.suspend(
                services.accounts.get_by_name(f"robin{number}").id,
                actor=system_actor("tests"),
                until=clock.now() + timedelta(hours=hours) if hours else None,
            )
        assert services.account_suspension.lift_due(100) == 0

        clock.advance(minutes=61)
        assert services.account_suspension.lift_due(100) == 1
        clock.advance(days=3650)
        assert services.account_suspension.lift_due(100) == 1
        assert services.account_suspension.lift_due(100) == 0
        states = [services.accounts.get_by_name(f"robin{number}").status for number in range(3)]

    assert states == ["active", "active", "suspended"]
    rows = audit_rows(app, action="user.activated")
    assert [(row.actor_type, row.details) for row in rows] == [
        ("system", {"reason": "until_reached"})
    ] * 2
    assert len(events(app, type_="user.activated")) == 2


def test_the_number_of_lifted_suspensions_is_limited(
    app: Flask, services: Services, clock: ManualClock, make_user: MakeUser
) -> None:
    with app.app_context():
        for number in range(3):
            make_user(f"robin{number}")
            services.account_suspension.suspend(
                services.accounts.get_by_name(f"robin{number}").id,
                actor=system_actor("tests"),
                until=clock.now() + timedelta(hours=1 + number),
            )
        clock.advance(days=1)

        assert [services.account_suspension.lift_due(2) for _ in range(3)] == [2, 1, 0]
