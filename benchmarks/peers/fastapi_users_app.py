"""fastapi-users as its documentation sets it up: JWT, asyncpg, bcrypt with cost 12.

`python fastapi_users_app.py USERS` creates the tables and users.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

PASSWORD = os.environ["PEER_PASSWORD"]
SECRET = "not-a-secret-benchmark-of-a-peer-2f7d1c"

engine = create_async_engine(
    os.environ["PEER_DSN"].replace("postgresql://", "postgresql+asyncpg://")
)
new_session = async_sessionmaker(engine, expire_on_commit=False)
password_helper = PasswordHelper(PasswordHash((BcryptHasher(rounds=12),)))


class Base(DeclarativeBase):
    """The tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A user."""


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """The manager of users."""


async def user_manager() -> AsyncIterator[UserManager]:
    """Yield a manager with a session of its own."""
    async with new_session() as session:
        yield UserManager(SQLAlchemyUserDatabase(session, User), password_helper)


backend = AuthenticationBackend(
    name="jwt",
    transport=BearerTransport(tokenUrl="auth/jwt/login"),
    get_strategy=lambda: JWTStrategy(secret=SECRET, lifetime_seconds=3600),
)
fastapi_users = FastAPIUsers[User, uuid.UUID](user_manager, [backend])
current_user = fastapi_users.current_user(active=True)

app = FastAPI()
app.include_router(fastapi_users.get_auth_router(backend), prefix="/auth/jwt")


@app.get("/me")
async def me(user: User = Depends(current_user)) -> schemas.BaseUser[uuid.UUID]:
    """Return the user of the token."""
    return schemas.BaseUser[uuid.UUID].model_validate(user)


async def _seed(count: int) -> None:
    hashed = password_helper.hash(PASSWORD)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        for start in range(0, count, 1000):
            rows = [
                {
                    "id": uuid.uuid4(),
                    "email": f"user-{number}@example.com",
                    "hashed_password": hashed,
                }
                for number in range(start, min(start + 1000, count))
            ]
            await session.execute(insert(User), rows)
        await session.commit()


if __name__ == "__main__":
    asyncio.run(_seed(int(sys.argv[1])))
