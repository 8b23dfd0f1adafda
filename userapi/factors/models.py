"""The tables of second factors."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id, partial_index

MAX_NAME_LENGTH = 64


class TotpFactor(Base):
    """An authenticator app (RFC 6238). It is a factor once `confirmed_at` is set.

    `last_step` is the time step of the last accepted code: no code of it or before it is accepted
    again. `sealed_secret` is encrypted by the key whose fingerprint is `key_id`.
    """

    __tablename__ = "totp_factors"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(MAX_NAME_LENGTH))
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    key_id: Mapped[str] = mapped_column(String(16))
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_totp_factors_user_id", "user_id"),
        partial_index(
            "ix_totp_factors_pending_user_id", "user_id", where="confirmed_at IS NULL", unique=True
        ),
        Index("ix_totp_factors_key_id", "key_id"),
    )


class Passkey(Base):
    """A discoverable WebAuthn credential that verifies its user (WebAuthn Level 3)."""

    __tablename__ = "passkeys"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(MAX_NAME_LENGTH))
    credential_id: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    sign_count: Mapped[int] = mapped_column(BigInteger)
    backup_eligible: Mapped[bool]
    backed_up: Mapped[bool]
    transports: Mapped[list[str]] = mapped_column(JsonDocument)
    rp_id: Mapped[str] = mapped_column(String(253))
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_passkeys_user_id", "user_id"), Index("ix_passkeys_rp_id", "rp_id"))


class RecoveryCode(Base):
    """A one-time code for a user who has lost the other factors.

    The codes of one set share a salt, so that a try costs one hash. A used code keeps its row.
    """

    __tablename__ = "recovery_codes"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    salt: Mapped[str] = mapped_column(String(64))
    code_hash: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_recovery_codes_user_id", "user_id"),)


class UsedChallenge(Base):
    """A WebAuthn challenge that was answered. It is kept until it would have expired."""

    __tablename__ = "used_challenges"

    challenge_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_used_challenges_expires_at", "expires_at"),)


class WebAuthnUser(Base):
    """The random user handle of an account (WebAuthn Level 3 §5.4.3), unrelated to its id."""

    __tablename__ = "webauthn_users"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    handle: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
