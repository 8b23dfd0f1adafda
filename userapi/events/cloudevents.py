"""The published form of events: CloudEvents 1.0, JSON, structured mode."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from userapi.clock import rfc3339

CONTENT_TYPE = "application/cloudevents+json"
# Identifies the kind of service and not the installation, because consumers match on it.
SOURCE = "urn:aima:user-service"


def envelope(
    *,
    id: UUID,
    type: str,
    subject: str,
    occurred_at: datetime,
    sequence: int,
    history: str | None,
    correlation_id: str | None,
    traceparent: str | None,
    data: Any,
) -> bytes:
    """Return the event as a JSON document. Raises TypeError for data that JSON cannot hold."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(id),
        "source": SOURCE,
        "type": type,
        "subject": subject,
        "time": rfc3339(occurred_at),
        "datacontenttype": "application/json",
        # A string, as the extension requires: JSON numbers lose digits in some languages.
        "sequence": str(sequence),
    }
    if history is not None:
        event["history"] = history
    if correlation_id is not None:
        event["correlationid"] = correlation_id
    if traceparent is not None:
        event["traceparent"] = traceparent
    event["data"] = data
    return orjson.dumps(event)
