"""Flask-Security as its documentation sets it up: authentication tokens, bcrypt with cost 12.

`python flask_security_app.py USERS` creates the tables and users.
"""

import os
import sys
import uuid

from flask import Flask
from flask_security import (
    Security,
    SQLAlchemyUserDatastore,
    auth_required,
    current_user,
    hash_password,
)
from flask_security.models import fsqla_v3 as models
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import insert

PASSWORD = os.environ["PEER_PASSWORD"]

app = Flask(__name__)
app.config.update(
    SECRET_KEY="not-a-secret-benchmark-of-a-peer-2f7d1c",
    SECURITY_PASSWORD_SALT="146585145368132386173505678016728509634",
    SECURITY_PASSWORD_HASH="bcrypt",
    SECURITY_PASSLIB_OPTIONS={"bcrypt__rounds": 12},
    SECURITY_PASSWORD_SINGLE_HASH=False,
    WTF_CSRF_ENABLED=False,
    SQLALCHEMY_DATABASE_URI=os.environ["PEER_DSN"].replace("postgresql:", "postgresql+psycopg2:"),
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 8},
)
db = SQLAlchemy(app)
models.FsModels.set_db_info(db)


class Role(db.Model, models.FsRoleMixin):
    """A role."""


class User(db.Model, models.FsUserMixin):
    """A user."""


app.security = Security(app, SQLAlchemyUserDatastore(db, User, Role))


@app.get("/me")
@auth_required("token")
def me() -> dict[str, object]:
    """Return the user of the token."""
    return {
        "id": current_user.id,
        "email": current_user.email,
        "active": current_user.active,
        "roles": [role.name for role in current_user.roles],
    }


def _seed(count: int) -> None:
    with app.app_context():
        db.create_all()
        hashed = hash_password(PASSWORD)
        for start in range(0, count, 1000):
            rows = [
                {
                    "email": f"user-{number}@example.com",
                    "password": hashed,
                    "active": True,
                    "fs_uniquifier": uuid.uuid4().hex,
                    "fs_token_uniquifier": uuid.uuid4().hex,
                }
                for number in range(start, min(start + 1000, count))
            ]
            db.session.execute(insert(User), rows)
        db.session.commit()


if __name__ == "__main__":
    _seed(int(sys.argv[1]))
