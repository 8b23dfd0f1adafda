"""The floors: what the same cores do with bare Flask, with one SELECT, with bcrypt alone."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bcrypt
import psycopg2.pool
from flask import Flask

USER = {"id": "01900000-0000-7000-8000-000000000000", "username": "ada", "roles": ["user"]}


def create_app() -> Flask:
    """Return an application with one answer from memory and one from the database by key."""
    app = Flask(__name__)
    pool: list[psycopg2.pool.ThreadedConnectionPool] = []

    @app.get("/bare")
    def bare() -> dict[str, Any]:
        return USER

    @app.get("/select")
    def select() -> dict[str, Any]:
        if not pool:
            pool.append(psycopg2.pool.ThreadedConnectionPool(8, 8, os.environ["FLOOR_DSN"]))
        connection = pool[0].getconn()
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT id::text, username, email, status FROM users WHERE username = %s",
                    (os.environ["FLOOR_USERNAME"],),
                )
                (row,) = cursor.fetchall()
        finally:
            pool[0].putconn(connection)
        return {"id": row[0], "username": row[1], "email": row[2], "status": row[3]}

    return app


def bcrypt_checks_per_second(rounds: int, seconds: float) -> float:
    """Return how many passwords all cores check in a second (bcrypt lets go of the GIL)."""
    hashed = bcrypt.hashpw(b"password", bcrypt.gensalt(rounds))
    cores = len(os.sched_getaffinity(0))
    end = time.perf_counter() + seconds

    def check() -> int:
        count = 0
        while time.perf_counter() < end:
            bcrypt.checkpw(b"password", hashed)
            count += 1
        return count

    begun = time.perf_counter()
    with ThreadPoolExecutor(cores) as threads:
        total = sum(future.result() for future in [threads.submit(check) for _ in range(cores)])
    return total / (time.perf_counter() - begun)
