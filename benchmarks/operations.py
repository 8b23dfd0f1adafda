"""The requests that `make bench` sends."""

import base64
import json
from collections.abc import Callable
from uuid import uuid4

from benchmarks import report
from benchmarks.load import Request
from benchmarks.stage import API, PASSWORD, client_of, log_in, rare_search, usernames
from tests.support.gunicorn import GunicornService

CONNECTIONS = 8
JSON = {"Content-Type": "application/json"}


def operations(service: GunicornService, database: str) -> dict[str, Callable[[], Request]]:
    """Return the requests by their names; each makes its tokens when its turn comes."""
    token = log_in(service).access_token
    bearer = {"Authorization": f"Bearer {token}"}
    batch = uuid4().hex[:8]
    client_id, key = _new_service_account(service, f"bench-{batch}")
    basic = base64.b64encode(f"{client_id}:{key}".encode()).decode()
    rare = rare_search(database)

    def get(path: str, headers: dict[str, str] = bearer) -> Callable[[], Request]:
        return lambda: Request(path=f"{API}{path}", headers=headers)

    def new_user(path: str, headers: dict[str, str], prefix: str) -> Callable[[], Request]:
        name = f"{prefix}-{batch}-#"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        return lambda: Request(
            path=f"{API}{path}",
            method="POST",
            headers={**headers, **JSON},
            bodies=[json.dumps(body)],
            is_numbered=True,
            status=201,
        )

    return {
        report.VERIFY: get("/auth/verify"),
        report.BY_KEY: get("/auth/verify", {"Authorization": f"Bearer {key}"}),
        report.CLIENT_TOKEN: lambda: Request(
            path=f"{API}/auth/token",
            method="POST",
            headers={
                "Authorization": f"Basic {basic}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            bodies=["grant_type=client_credentials"],
        ),
        report.ME: get("/users/me"),
        report.LIST: get("/users/?page_size=50"),
        report.FEW_FOUND: get(f"/users/?search={rare}&page_size=20"),
        report.SEARCH: get("/users/?search=martin&page_size=20"),
        # So many match that finding and sorting them is nearly all of the work.
        report.MANY_FOUND: get("/users/?search=mar&page_size=20"),
        report.REFRESH: lambda: Request(
            path=f"{API}/auth/refresh",
            method="POST",
            headers=JSON,
            bodies=[
                json.dumps({"refresh_token": log_in(service).refresh_token})
                for _ in range(CONNECTIONS)
            ],
            successor="refresh_token",
        ),
        # Many people: more than a few at once for one name would be refused.
        report.LOG_IN: lambda: log_ins(usernames(database, 64)),
        report.CREATE: new_user("/users/", bearer, "made"),
        report.REGISTER: new_user("/auth/register", {}, "own"),
    }


def log_ins(names: list[str], *, status: int = 200) -> Request:
    """Return log-ins of these users in turn."""
    bodies = [json.dumps({"username": name, "password": PASSWORD}) for name in names]
    return Request(
        path=f"{API}/auth/login", method="POST", headers=JSON, bodies=bodies, status=status
    )


def _new_service_account(service: GunicornService, name: str) -> tuple[str, str]:
    """Create a service account with a key; return its id and the text of the key."""
    with client_of(service) as api:
        account = api.service_accounts.create(name=name, roles=["moderator"])
        return account.id, api.api_keys.create(service_account=account.id, name="bench").key
