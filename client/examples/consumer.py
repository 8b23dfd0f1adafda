"""Prints each change of a user once, also when the program is killed in between.

RABBITMQ_URL=amqp://guest:guest@localhost// python consumer.py
"""

import os
import sqlite3

from userapi_client.events import EventConsumer

people = sqlite3.connect("people.sqlite3", check_same_thread=False)
people.execute(
    "CREATE TABLE IF NOT EXISTS seen (subject TEXT PRIMARY KEY, sequence INTEGER NOT NULL)"
)


def handle(event):  # delivered at least once: the largest sequence wins
    with people:
        new = people.execute(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET"
            " sequence = excluded.sequence WHERE excluded.sequence > sequence",
            (event.subject, event.sequence),
        ).rowcount
        if new:
            print(event.type, event.subject, event.data["status"])


EventConsumer(os.environ["RABBITMQ_URL"], "people", bindings=["user.*"]).run(handle)
