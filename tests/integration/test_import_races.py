"""Concurrent imports on PostgreSQL."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask

from tests.support.facts import audit_rows, events
from userapi.accounts.imports.rows import Row
from userapi.actor import system_actor
from userapi.wiring.services import Services


@pytest.mark.thorough
def test_three_concurrent_imports_of_a_file_create_each_user_once(
    app: Flask, services: Services
) -> None:
    count, times = 1200, 3
    rows = [
        Row(number, {"username": f"user{number}", "email": f"user{number}@example.com"})
        for number in range(1, count + 1)
    ]
    barrier = Barrier(times)

    def run(turn: int) -> list[str | None]:
        with app.app_context():
            barrier.wait()
            order = rows if turn % 2 else list(reversed(rows))
            batches = services.user_imports.run(order, actor=system_actor("tests"))
            return [result.code for batch in batches for result in batch]

    with ThreadPoolExecutor(times) as pool:
        codes = Counter(code for found in pool.map(run, range(times)) for code in found)

    assert codes == {None: count, "username_taken": count * (times - 1)}
    assert len(audit_rows(app, action="user.imported")) == count
    assert len(events(app, type_="user.created")) == count
