"""Programs that are forked with their libraries behave like those of a new interpreter."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gunicorn import service_environment
from tests.support.polling import wait_until
from tests.support.preloaded import AnyProcess, ForkedProcess, Order, forker, start_interpreter

PROGRAM = """
import json, os, sys, time
print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()]))
print("sqlalchemy" in sys.modules, "prometheus_client" in sys.modules, file=sys.stderr)
while "wait" in sys.argv:
    time.sleep(0.01)
sys.exit(3)
"""


def order(folder: Path, *arguments: str, **variables: str) -> Order:
    (folder / "program.py").write_text(PROGRAM, "utf-8")
    return Order(
        python=sys.executable,
        module="program",
        arguments=list(arguments),
        folder=str(folder),
        environment=service_environment(variables),
        log=str(folder / "log"),
    )


@pytest.mark.parametrize("start", [forker.start, start_interpreter], ids=["fork", "interpreter"])
def test_a_program_gets_its_arguments_variables_and_folder(
    start: Callable[[Order], AnyProcess], tmp_path: Path
) -> None:
    process = start(order(tmp_path, "a", "b", COLOUR="red"))

    assert process.wait(60) == 3
    assert process.poll() == 3
    said, loaded = (tmp_path / "log").read_text("utf-8").splitlines()
    arguments, variables, folder, leads_session = json.loads(said)
    assert (arguments, folder, leads_session) == (["a", "b"], str(tmp_path), True)
    assert variables.pop("LC_CTYPE", "") in ("", "C.UTF-8")  # Python's own (PEP 538).
    assert variables == service_environment({"COLOUR": "red"})
    assert loaded == ("True False" if isinstance(process, ForkedProcess) else "False False")


def test_a_fork_is_waited_for_and_ended_by_signals(tmp_path: Path) -> None:
    process = forker.start(order(tmp_path, "wait"))
    wait_until(lambda: (tmp_path / "log").read_text("utf-8").count("\n") == 2)

    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.poll() is None
    process.terminate()

    assert process.wait(60) == -signal.SIGTERM
    process.kill()  # It has ended: nothing happens.


def test_variables_that_an_interpreter_reads_at_its_start_need_a_new_one(tmp_path: Path) -> None:
    process = forker.start(order(tmp_path, PYTHONHASHSEED="1"))

    assert process.wait(60) == 3
    assert not isinstance(process, ForkedProcess)
