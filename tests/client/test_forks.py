"""One verifier in many processes: sockets and locks are not shared by a fork."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornService

from .conftest import People, StartServer, send

APP = """
import os

from flask import Flask

from userapi_client import Verifier
from userapi_client.flask import UserApi, current_principal

app = Flask(__name__)
verifier = Verifier(os.environ["USERAPI_URL"], issuer="aima-user-service", audience="aima")
verifier.warm()  # Before the fork: the connection is open now.
auth = UserApi(verifier, app)


@app.get("/media")
@auth.required("media:read", fresh=True)
def index():
    return {"for": current_principal.id, "process": os.getpid()}
"""


@pytest.mark.thorough
def test_forked_processes_mix_up_no_answers(
    service: GunicornService, people: People, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "forked_app.py").write_text(APP)
    command = ("-m", "gunicorn", "--preload", "--workers", "4", "--threads", "4")
    url = start_server(
        *command,
        *("--bind", "127.0.0.1:PORT", "--chdir", str(tmp_path), "forked_app:app"),
        USERAPI_URL=service.base_url,
    )
    callers = [people.holding("media:read") for _ in range(4)]

    def ask(number: int) -> tuple[bool, int]:
        user, tokens = callers[number % 4]
        answer = send("GET", f"{url}/media", token=tokens.access_token)
        found = answer.json()
        return answer.status_code == 200 and found["for"] == user, found.get("process", 0)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(400)))

    assert {is_right for is_right, _ in answers} == {True}
    assert len({process for _, process in answers}) > 1
