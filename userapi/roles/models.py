"""The tables of roles, their parents, their users, and the version of the catalogue."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, FetchedValue, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument

BASE_ROLE = "user"
TOP_ROLE = "superadmin"
# Per user or service account. Access tokens list the roles, and must be short enough for a header.
MAX_ROLES = 50


class Role(Base):
    """A named set of permissions. The name is the key that users, tokens and events refer to."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    permissions: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    builtin: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class RoleParent(Base):
    """`role_name` inherits all that `parent_name` grants."""

    __tablename__ = "role_parents"

    role_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="CASCADE"), primary_key=True
    )
    parent_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="RESTRICT"), primary_key=True
    )

    __table_args__ = (
        CheckConstraint("role_name <> parent_name", name="no_self_parent"),
        Index("ix_role_parents_parent_name", "parent_name"),
    )


class UserRole(Base):
    """A user has a role.

    Triggers copy the status of the user to `user_status`, so that one index finds users by both.
    """

    __tablename__ = "user_roles"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    role_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="RESTRICT"), primary_key=True
    )

    user_status: Mapped[str | None] = mapped_column(String(16), server_default=FetchedValue())

    __table_args__ = (
        Index("ix_user_roles_role_name_user_status_user_id", "role_name", "user_status", "user_id"),
    )


class ServiceAccountRole(Base):
    """A service account has a role."""

    __tablename__ = "service_account_roles"

    service_account_id: Mapped[UUID] = mapped_column(
        ForeignKey("service_accounts.id", ondelete="CASCADE"), primary_key=True
    )
    role_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="RESTRICT"), primary_key=True
    )

    __table_args__ = (Index("ix_service_account_roles_role_name", "role_name"),)


class RoleCatalogue(Base):
    """One row whose version increases with each change of a role, which invalidates caches."""

    __tablename__ = "role_catalogue"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)
