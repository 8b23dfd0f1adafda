"""A service that keeps its own list of users, from the events of the User Management Service.

Every event is worked on at least once and counts once. Stop it, kill it, unplug the broker: it
goes on where it was.

    pip install kombu
    RABBITMQ_URL=amqp://people:…@broker.internal// python consume_events.py
"""

import json
import os
import signal
import sqlite3

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin

RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672//")
EXCHANGE = os.environ.get("RABBITMQ_EXCHANGE", "user_events")
QUEUE = os.environ.get("QUEUE", "people")
DATABASE = os.environ.get("DATABASE", "people.sqlite3")

events = Exchange(EXCHANGE, type="topic", durable=True)
# What cannot be worked on goes where a person looks at it, and holds up nothing.
dead_letters = Exchange(f"{QUEUE}.dead", type="fanout", durable=True)
dead = Queue(f"{QUEUE}.dead", dead_letters, durable=True)
# Durable: while this service is away, the broker keeps its events.
people = Queue(
    QUEUE,
    events,
    routing_key="user.*",
    durable=True,
    queue_arguments={"x-dead-letter-exchange": dead_letters.name},
)

TABLES = """
CREATE TABLE IF NOT EXISTS people (id TEXT PRIMARY KEY, username TEXT, email TEXT, status TEXT);
CREATE TABLE IF NOT EXISTS seen (subject TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
"""


class Follower(ConsumerMixin):
    """Keeps the list. ConsumerMixin connects again when the broker was away."""

    def __init__(self, connection: Connection, database: sqlite3.Connection) -> None:
        self.connection = connection
        self._database = database

    def get_consumers(self, Consumer, channel) -> list:
        """Make queue and binding, where they are missing, and consume."""
        dead(channel).declare()
        # accept=None hands over the bytes: what is no JSON must not end the program.
        return [Consumer([people], on_message=self.take, accept=None, prefetch_count=20)]

    def take(self, message) -> None:
        """Work on one event; tell the broker only when it is written down."""
        try:
            event = json.loads(message.body)
            subject, sequence = event["subject"], int(event["sequence"])
            kind, data = event["type"], event["data"]
        except (ValueError, KeyError, TypeError):
            message.reject(requeue=False)  # To the dead letters: it will not get better.
            return
        with self._database:  # One transaction: the mark and the effect, or neither.
            if self._is_new(subject, sequence):
                self._apply(kind, data)
        message.ack()

    def _is_new(self, subject: str, sequence: int) -> bool:
        """Note the event as seen; tell whether it is newer than all that came of its subject.

        The mark stays when the user is deleted, so that a late copy does not bring them back.
        """
        noted = self._database.execute(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT (subject)"
            " DO UPDATE SET sequence = excluded.sequence WHERE excluded.sequence > sequence",
            (subject, sequence),
        )
        return noted.rowcount == 1

    def _apply(self, kind: str, data: dict) -> None:
        if kind == "user.deleted":
            self._database.execute("DELETE FROM people WHERE id = ?", (data["user_id"],))
            return
        # Each event holds the whole state, so a type that is new to us is understood, too.
        self._database.execute(
            "INSERT OR REPLACE INTO people VALUES (:user_id, :username, :email, :status)", data
        )


def main() -> None:
    """Follow until SIGTERM."""
    database = sqlite3.connect(DATABASE)
    database.executescript(TABLES)
    with Connection(RABBITMQ_URL, heartbeat=30) as connection:
        follower = Follower(connection, database)

        def stop(*_: object) -> None:
            follower.should_stop = True

        signal.signal(signal.SIGTERM, stop)
        follower.run()


if __name__ == "__main__":
    main()
