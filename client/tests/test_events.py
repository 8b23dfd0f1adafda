"""Events as messages contain them: what is read, and what is rejected."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from userapi_client.events import read_event


def message(**changes: Any) -> bytes:
    members: dict[str, Any] = {
        "specversion": "1.0",
        "id": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21",
        "type": "user.updated",
        "subject": "019a2f6e-0000-7000-8000-000000000001",
        "sequence": "41",
        "history": "3",
        "time": "2026-01-31T12:00:00Z",
        "correlationid": "c-1",
        "data": {"status": "active"},
        **changes,
    }
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def test_an_event_has_the_members_of_its_message() -> None:
    event = read_event(message(later="a member of a newer service"))

    assert (event.type, event.sequence, event.history) == ("user.updated", 41, 3)
    assert event.time == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (event.correlation_id, event.traceparent) == ("c-1", None)
    assert event.raw["later"] == "a member of a newer service"


def test_an_event_of_a_service_with_sqlite_has_no_history() -> None:
    assert read_event(message(history=...)).history is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": "-1"},
        {"sequence": 41},
        {"sequence": "٤١"},
        {"sequence": ...},
        {"sequence": "9" * 5000},
        {"history": 3},
        {"history": "later"},
        {"history": "9" * 5000},
        {"data": ["active"]},
        {"data": ...},
        {"id": ""},
        {"time": "yesterday"},
    ],
    ids=str,
)
def test_a_message_of_another_form_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="."):
        read_event(message(**changes))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        read_event(body)
