"""A client of the User Management Service that keeps its promises when the network does not.

pip install requests
USERS_URL=http://127.0.0.1:8000 USERNAME=admin PASSWORD=… python rest_client.py
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import requests

TRIES = 4
PATIENCE_SECONDS = 10
OUTAGES = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class Problem(Exception):
    """The service refused. Switch on `code`: it stays, while texts may change."""

    def __init__(self, answer: requests.Response) -> None:
        body = answer.json()
        self.status: int = answer.status_code
        self.code: str = body["code"]
        self.errors: list[dict[str, str]] = body.get("errors", [])
        # Tell the operator this id: it leads to log, audit entry and event.
        self.correlation_id: str = body["correlation_id"]
        super().__init__(f"{self.code}: {body['detail']} ({self.correlation_id})")


class UsersClient:
    """Speaks for one user. May be used by several threads."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/v1"
        self._tokens: dict[str, Any] = {}
        self._lock = threading.Lock()

    def log_in(self, username: str, password: str) -> dict[str, Any]:
        """Log in and return the user. Raises Problem, such as `invalid_credentials`."""
        body = {"username": username, "password": password}
        self._tokens = self._send("POST", "/auth/login", json=body).json()
        user: dict[str, Any] = self._tokens["user"]
        return user

    def refresh(self, *, instead_of: str) -> None:
        """Get a new pair of tokens, unless another thread has just done so.

        When the answer is lost, the same refresh token is sent again: for some seconds it gets the
        same successor. Later, or two generations late, it ends the session.
        """
        with self._lock:
            if self._tokens["access_token"] != instead_of:
                return
            body = {"refresh_token": self._tokens["refresh_token"]}
            self._tokens |= self._send("POST", "/auth/refresh", json=body).json()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request with the token; once more with a new one when it has expired."""
        token = self._tokens["access_token"]
        try:
            return self._send(method, path, token=token, **options)
        except Problem as problem:
            if problem.code != "token_expired":
                raise  # token_revoked: the session is over, log in again.
        self.refresh(instead_of=token)
        return self._send(method, path, token=self._tokens["access_token"], **options)

    def create_user(self, **fields: Any) -> dict[str, Any]:
        """Create a user, exactly once, however often an answer is lost on its way."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}  # One key for all tries of one wish.
        user: dict[str, Any] = self.call("POST", "/users/", json=fields, headers=headers).json()
        return user

    def change_user(
        self, user_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Change a user by what `change` makes of the present state; never over others' work."""
        for _ in range(TRIES):
            found = self.call("GET", f"/users/{user_id}")
            headers = {"If-Match": found.headers["ETag"]}
            try:
                wanted = change(found.json())
                answer = self.call("PATCH", f"/users/{user_id}", json=wanted, headers=headers)
            except Problem as problem:
                if problem.code != "stale_resource":
                    raise
                continue  # Somebody was faster: look again and decide again.
            user: dict[str, Any] = answer.json()
            return user
        raise TimeoutError("somebody else is always faster")

    def all_users(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Walk through every user whom the filters leave; rows may be added meanwhile."""
        query = {**filters, "page_size": 100}
        while True:
            page = self.call("GET", "/users/", params=query).json()
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _send(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> requests.Response:
        """Send, and again after an outage or a limit.

        Everything here may be sent twice: reading and setting by nature, creating by its key,
        refreshing by its grace. Who deletes takes a 404 after a lost answer for a yes.
        """
        headers = {**options.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        for tries_left in reversed(range(TRIES)):
            wait = 0.2 * 2 ** (TRIES - tries_left)
            try:
                answer = requests.request(
                    method, self._url + path, headers=headers, timeout=PATIENCE_SECONDS, **options
                )
                if "X-Correlation-ID" not in answer.headers:
                    raise requests.ConnectionError("an answer without its end")
                if answer.ok:
                    return answer
                # 429, 503, and 409 of a request under way say how long to wait.
                if "Retry-After" not in answer.headers or not tries_left:
                    raise Problem(answer)
                wait = int(answer.headers["Retry-After"])
                if wait > PATIENCE_SECONDS:
                    raise Problem(answer)
            except OUTAGES:
                if not tries_left:
                    raise
            time.sleep(wait)
        raise AssertionError("unreachable")


def main() -> None:
    """Create a user, change them, list all, delete them."""
    client = UsersClient(os.environ.get("USERS_URL", "http://127.0.0.1:8000"))
    client.log_in(os.environ["USERNAME"], os.environ["PASSWORD"])
    ada = client.create_user(username="ada", email="ada@example.com")  # An invitation by mail.
    client.change_user(ada["id"], lambda user: {"metadata": {**user["metadata"], "team": "vision"}})
    for user in client.all_users(sort="username"):
        print(user["username"], user["status"], user["metadata"])
    client.call("DELETE", f"/users/{ada['id']}")


if __name__ == "__main__":
    main()
