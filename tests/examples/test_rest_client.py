"""examples/rest_client.py, through a network that loses answers."""

import importlib.util
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.examples.conftest import ADMINISTRATOR, FAST, PASSWORD, StartProgram
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.proxy import FaultProxy

ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    with GunicornService(FAST) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture
def proxy(service: GunicornService) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", service.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def library() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "rest_client", REPOSITORY / "examples" / "rest_client.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(library: ModuleType, proxy: FaultProxy) -> Any:
    client = library.UsersClient(f"http://{proxy.host}:{proxy.port}")
    client.log_in(ADMINISTRATOR, PASSWORD)
    return client


def lose_the_next_answer(proxy: FaultProxy) -> None:
    proxy.cut_mid_answer(20)
    threading.Timer(0.3, proxy.pass_on).start()


def test_the_program_runs_as_it_stands(
    service: GunicornService, start_program: StartProgram
) -> None:
    program = start_program(
        "rest_client.py",
        USERS_URL=service.base_url,
        USERNAME=ADMINISTRATOR,
        PASSWORD=PASSWORD,
    )

    assert program.wait(30) == 0


def test_a_lost_answer_of_a_refresh_logs_nobody_out(client: Any, proxy: FaultProxy) -> None:
    before = client._tokens["access_token"]

    lose_the_next_answer(proxy)
    client.refresh(instead_of=before)

    assert client._tokens["access_token"] != before
    assert client.call("GET", "/auth/me").json()["username"] == ADMINISTRATOR


def test_a_lost_answer_of_a_create_makes_one_user(client: Any, proxy: FaultProxy) -> None:
    lose_the_next_answer(proxy)
    ada = client.create_user(**ADA)

    assert [user["id"] for user in client.all_users(search="ada")] == [ada["id"]]
    client.call("DELETE", f"/users/{ada['id']}")


def test_a_change_is_made_upon_the_newest_state(client: Any) -> None:
    ada = client.create_user(**ADA)
    others: list[dict[str, Any]] = [{"first_name": "Augusta"}]

    def rename(user: dict[str, Any]) -> dict[str, Any]:
        if others:  # Somebody else is faster, once.
            client.call("PATCH", f"/users/{ada['id']}", json=others.pop())
            return {"last_name": f"{user['first_name']} King"}
        return {"last_name": f"{user['first_name']} Lovelace"}

    assert client.change_user(ada["id"], rename)["last_name"] == "Augusta Lovelace"
    client.call("DELETE", f"/users/{ada['id']}")


def test_a_refusal_is_a_problem_with_its_code(client: Any, library: ModuleType) -> None:
    with pytest.raises(library.Problem) as refused:
        client.create_user(username="x")

    assert (refused.value.status, refused.value.code) == (422, "validation_failed")
    assert "email" in [error["field"] for error in refused.value.errors]
