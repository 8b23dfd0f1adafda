"""Service accounts and API keys as tests create them: through the API."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.client import JsonClient
from userapi.machines.key_text import key_text, parse_key

ACCOUNTS = "/api/v1/service-accounts/"
OWN_KEYS = "/api/v1/users/me/api-keys/"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKey:
    """A key that a test has created, with its text."""

    id: str
    text: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeService:
    """A service account that a test has created, and one of its keys."""

    id: str
    name: str
    path: str
    key: MadeKey

    @property
    def keys_path(self) -> str:
        return f"{self.path}/api-keys/"


def make_key(client: JsonClient, path: str, **fields: Any) -> MadeKey:
    """Create a key of the owner whose list of keys is at `path`."""
    answer = client.post(path, json={"name": "test", **fields})
    assert answer.status_code == 201, answer.get_json()
    made = answer.get_json()
    return MadeKey(id=made["id"], text=made["key"], path=f"{path}{made['id']}")


def make_service(
    client: JsonClient,
    name: str = "media-worker",
    *,
    roles: Sequence[str] = (),
    **key_fields: Any,
) -> MadeService:
    """Create a service account with one key."""
    answer = client.post(ACCOUNTS, json={"name": name, "roles": list(roles)})
    assert answer.status_code == 201, answer.get_json()
    account_id = answer.get_json()["id"]
    path = f"{ACCOUNTS}{account_id}"
    key = make_key(client, f"{path}/api-keys/", **key_fields)
    return MadeService(id=account_id, name=name, path=path, key=key)


def wrong_secret(text: str) -> str:
    """Return a key with the same id, a right checksum and another secret."""
    parsed = parse_key(text)
    assert parsed is not None
    return key_text(text.split("_")[0][:-1], parsed.owner_type, parsed.key_id, bytes(32))


def basic(client_id: str, secret: str) -> dict[str, str]:
    """Return the header that authenticates a client by the scheme Basic."""
    text = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def code_of(answer: Any) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return answer.status_code, answer.get_json()["code"]
