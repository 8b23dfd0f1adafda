"""From the outbox to the broker: in order for each user, at least once, never lost."""

import json
import threading
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.client import JsonClient
from tests.support.deployments import Backend, Deployment
from tests.support.facts import events
from tests.support.metrics import sample
from tests.support.polling import wait_until
from tests.support.users import MakeUser
from userapi.actor import Actor, system_actor
from userapi.clock import ManualClock
from userapi.events.catalogue import EventType, UserEvent, UserFacts
from userapi.events.leadership import AdvisoryLock, FileLock
from userapi.events.publisher import MemoryPublisher, Message, Receipt
from userapi.events.relay import ATTEMPTS_BEFORE_PARKED, BrokerAway, Relay
from userapi.infrastructure.database import new_id, reading, transaction
from userapi.settings import Settings
from userapi.wiring.services import Services

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Alone:
    """The place of a worker that has no rival."""

    history = "7"

    def holds(self) -> bool:
        return True

    def release(self) -> None:
        """Keep it."""


@pytest.fixture
def broker() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
def relay(broker: MemoryPublisher, clock: ManualClock) -> Relay:
    return Relay(clock=clock, publisher=broker, leadership=Alone())


def say(
    app: Flask, services: Services, *subjects: UUID, type_: EventType = EventType.USER_UPDATED
) -> None:
    with app.app_context(), transaction():
        for subject in subjects:
            facts = UserFacts(
                id=subject, username="ada", email="ada@example.com", status="active", roles=["user"]
            )
            services.outbox.append(UserEvent(type=type_, user=facts), actor=Actor())


def publish(app: Flask, relay: Relay, limit: int = 500) -> int:
    with app.app_context():
        return relay.publish_due(limit)


def envelopes(broker: MemoryPublisher) -> list[dict[str, Any]]:
    return [json.loads(message.body) for message in broker.published]


@pytest.mark.both_databases
def test_an_event_goes_out_as_a_cloud_event(
    app: Flask, services: Services, relay: Relay, broker: MemoryPublisher, make_user: MakeUser
) -> None:
    user = make_user("ada")
    actor = replace(system_actor("tests"), correlation_id="abc", traceparent=TRACEPARENT)
    with app.app_context():
        services.account_editing.update(UUID(user.id), {"first_name": "Ada"}, actor=actor)

    sent = publish(app, relay)

    assert sent == 2
    created, updated = envelopes(broker)
    assert created["type"] == broker.published[0].routing_key == "user.created"
    _, row = events(app)
    assert updated == {
        "specversion": "1.0",
        "id": str(row.id),
        "source": "urn:aima:user-service",
        "type": "user.updated",
        "subject": user.id,
        "time": row.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "datacontenttype": "application/json",
        "sequence": str(row.sequence),
        "history": "7",
        "correlationid": "abc",
        "traceparent": TRACEPARENT,
        "data": {
            "user_id": user.id,
            "username": "ada",
            "email": "ada@example.com",
            "status": "active",
            "roles": ["user"],
            "changed": ["first_name"],
        },
    }
    assert broker.published[1].id == updated["id"]


@pytest.mark.both_databases
def test_each_event_goes_out_once_and_in_order(
    app: Flask, services: Services, relay: Relay, broker: MemoryPublisher
) -> None:
    one, two = new_id(), new_id()
    say(app, services, one, two, one, one, two)

    assert publish(app, relay) == 5
    assert publish(app, relay) == 0

    sequences = [(e["subject"], int(e["sequence"])) for e in envelopes(broker)]
    for subject in (str(one), str(two)):
        own = [sequence for name, sequence in sequences if name == subject]
        assert own == sorted(own)
    assert all(row.sent_at is not None for row in events(app))


def test_an_event_committed_after_a_later_one_is_not_passed_over(
    app: Flask, services: Services, relay: Relay, broker: MemoryPublisher
) -> None:
    """Numbers are given at the insert: reading "after the last one" would lose the slow one."""
    slow, quick = new_id(), new_id()
    inserted, finish = threading.Event(), threading.Event()

    def be_slow() -> None:
        with app.app_context(), transaction():
            facts = UserFacts(id=slow, username="s", email="s@example.com", status="a", roles=[])
            services.outbox.append(
                UserEvent(type=EventType.USER_CREATED, user=facts), actor=Actor()
            )
            inserted.set()
            finish.wait(10)

    thread = threading.Thread(target=be_slow)
    thread.start()
    inserted.wait(10)
    say(app, services, quick)
    first = publish(app, relay)
    finish.set()
    thread.join()

    second = publish(app, relay)

    assert (first, second) == (1, 1)
    earlier, later = (int(e["sequence"]) for e in reversed(envelopes(broker)))
    assert earlier < later


@pytest.mark.thorough
@pytest.mark.both_databases
def test_what_the_broker_has_confirmed_is_counted_for_every_process(
    app: Flask, services: Services, relay: Relay, broker: MemoryPublisher
) -> None:
    """It was counted in the process that publishes, and the service's metrics always said 0."""
    say(app, services, new_id(), new_id(), new_id())
    broker.refuses = lambda message: len(broker.published) == 2
    client = JsonClient(app)
    before = sample(client, "events_published_total")

    publish(app, relay)
    with app.app_context(), transaction() as session:
        session.execute(text("DELETE FROM outbox_events WHERE sent_at IS NOT NULL"))

    assert before == 0
    assert sample(client, "events_published_total") == 2
    assert "# TYPE events_published_total counter\n" in client.get("/metrics").text


@pytest.mark.both_databases
def test_a_rejected_event_delays_only_events_of_its_user(
    app: Flask,
    services: Services,
    relay: Relay,
    broker: MemoryPublisher,
    clock: ManualClock,
) -> None:
    ada, bob = new_id(), new_id()
    say(app, services, ada, type_=EventType.USER_CREATED)
    say(app, services, ada, bob, ada)
    broker.refuses = lambda message: message.routing_key == "user.created"

    publish(app, relay)
    publish(app, relay)
    while_refused = [e["subject"] for e in envelopes(broker)]
    broker.refuses = lambda message: False
    clock.advance(seconds=2)
    publish(app, relay)

    assert while_refused == [str(bob)]
    assert [e["type"] for e in envelopes(broker) if e["subject"] == str(ada)] == [
        "user.created",
        "user.updated",
        "user.updated",
    ]


def test_a_refused_event_is_tried_less_and_less_often(
    app: Flask,
    services: Services,
    relay: Relay,
    broker: MemoryPublisher,
    clock: ManualClock,
) -> None:
    say(app, services, new_id())
    tried: list[str] = []

    def refuse(message: Message) -> bool:
        tried.append(message.id)
        return True

    broker.refuses = refuse

    for _ in range(8):
        publish(app, relay)
        clock.advance(seconds=1.01)

    # At 0, 1, 3 and 7 seconds.
    assert len(tried) == 4


def test_an_event_rejected_too_often_is_parked_and_later_ones_are_published(
    app: Flask,
    services: Services,
    relay: Relay,
    broker: MemoryPublisher,
    clock: ManualClock,
) -> None:
    ada = new_id()
    say(app, services, ada, type_=EventType.USER_CREATED)
    say(app, services, ada)
    broker.refuses = lambda message: message.routing_key == "user.created"

    for _ in range(ATTEMPTS_BEFORE_PARKED + 1):
        publish(app, relay)
        clock.advance(minutes=6)

    parked, gone = events(app)
    assert parked.parked_at is not None
    assert parked.last_error == "refused by the broker"
    assert gone.sent_at is not None
    assert [e["type"] for e in envelopes(broker)] == ["user.updated"]


@pytest.mark.parametrize("backend", [Backend.SQLITE], indirect=True)
def test_an_event_that_is_not_json_is_parked_and_delays_no_other(
    app: Flask,
    services: Services,
    relay: Relay,
    broker: MemoryPublisher,
    clock: ManualClock,
) -> None:
    """Only SQLite takes such a document into its column."""
    bob = new_id()
    say(app, services, new_id(), bob)
    with app.app_context(), transaction() as session:
        session.execute(
            text(
                "UPDATE outbox_events SET data = '{\"broken\"'"
                " WHERE sequence = (SELECT MIN(sequence) FROM outbox_events)"
            )
        )

    for _ in range(ATTEMPTS_BEFORE_PARKED):
        publish(app, relay)
        clock.advance(minutes=6)

    broken, _ = events_without_data(app)
    assert broken.parked_at is not None
    assert broken.last_error == "cannot be written as JSON"
    assert [e["subject"] for e in envelopes(broker)] == [str(bob)]


def events_without_data(app: Flask) -> Any:
    with app.app_context(), reading() as connection:
        return connection.execute(
            text("SELECT parked_at, last_error FROM outbox_events ORDER BY sequence")
        ).all()


@pytest.mark.both_databases
def test_an_outage_of_the_broker_counts_against_no_event(
    app: Flask,
    services: Services,
    relay: Relay,
    broker: MemoryPublisher,
    clock: ManualClock,
) -> None:
    say(app, services, *[new_id() for _ in range(3)])
    broker.is_away = True

    for _ in range(ATTEMPTS_BEFORE_PARKED + 2):
        with pytest.raises(BrokerAway):
            publish(app, relay)
        clock.advance(minutes=6)
    broker.is_away = False

    assert [(row.attempts, row.parked_at) for row in events(app)] == [(0, None)] * 3
    assert [publish(app, relay) for _ in range(3)] == [1, 2, 0]


class HalfWay(MemoryPublisher):
    """A broker that goes away after two messages of the first call."""

    def publish(self, messages: Any) -> Receipt:
        receipt = super().publish(messages[:2])
        if len(messages) > 2:
            receipt.outage = "ConnectionResetError"
        return receipt


def test_what_was_confirmed_before_an_outage_is_not_sent_again(
    app: Flask, services: Services, clock: ManualClock
) -> None:
    broker = HalfWay()
    relay = Relay(clock=clock, publisher=broker, leadership=Alone())
    say(app, services, *[new_id() for _ in range(4)])

    with pytest.raises(BrokerAway):
        publish(app, relay)
    while publish(app, relay):
        pass

    assert len(broker.published) == 4
    assert len({message.id for message in broker.published}) == 4


def test_an_event_goes_out_again_when_its_confirm_could_not_be_written_down(
    app: Flask, services: Services, relay: Relay, broker: MemoryPublisher
) -> None:
    """At least once: a crash between the confirm and the commit sends twice, with one id."""
    say(app, services, new_id())
    with app.app_context():
        due = relay._due(10)
        assert broker.publish([event.message for event in due if event.message]).confirmed

    publish(app, relay)

    assert len(broker.published) == 2
    assert len({message.id for message in broker.published}) == 1


def test_a_second_worker_is_on_standby_and_takes_over(
    app: Flask, services: Services, deployment: Deployment, clock: ManualClock
) -> None:
    settings = Settings.from_env(deployment.environment, instance_dir=deployment.instance_dir)
    brokers = [MemoryPublisher(), MemoryPublisher()]
    first, second = (
        Relay(clock=clock, publisher=broker, leadership=AdvisoryLock(settings.database_url))
        for broker in brokers
    )
    say(app, services, new_id())
    assert publish(app, first) == 1
    say(app, services, new_id())

    standing_by = publish(app, second)
    first.close()
    # The server needs a moment to end the other session.
    wait_until(lambda: publish(app, second) == 1)

    second.close()
    assert standing_by == 0
    assert [len(broker.published) for broker in brokers] == [1, 1]


def test_a_worker_that_lost_its_lock_stops_publishing(
    app: Flask, services: Services, deployment: Deployment, clock: ManualClock
) -> None:
    settings = Settings.from_env(deployment.environment, instance_dir=deployment.instance_dir)
    first, second = AdvisoryLock(settings.database_url), AdvisoryLock(settings.database_url)
    assert first.holds()
    with app.app_context(), transaction() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'userapi-relay' AND datname = current_database()"
            )
        )
    wait_until(second.holds)  # The server needs a moment to end the other session.

    with pytest.raises(psycopg2.Error):
        first.holds()

    assert not first.holds()
    assert second.holds()
    # A database that has never failed over.
    assert (first.history, second.history) == ("1", "1")
    first.release()
    second.release()


def test_workers_on_one_sqlite_file_take_turns(tmp_path: Any) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")

    assert first.holds()
    assert not second.holds()
    first.release()
    assert second.holds()
    assert second.history is None
    second.release()
