"""The table of failed log-ins, one row for each identifier that was typed."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base


class LoginAttempt(Base):
    """Consecutive failures for one identifier, known or not, or of the codes of one user.

    `identifier_hash` is an HMAC of what was typed, so the table does not reveal which names were
    tried; for codes of second factors it contains the id of the user. `in_flight` counts the
    passwords or codes that are being checked now, and `total_failures` the failures since the last
    success, which locks leave as they are.
    """

    __tablename__ = "login_attempts"

    identifier_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    in_flight: Mapped[int] = mapped_column(default=0)
    locks: Mapped[int] = mapped_column(default=0)
    total_failures: Mapped[int] = mapped_column(default=0, server_default="0")
    locked_until: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime]

    __table_args__ = (Index("ix_login_attempts_last_attempt_at", "last_attempt_at"),)
