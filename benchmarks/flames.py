"""`make flames`: where a worker process spends its time, as flame graphs in docs/flames/.

py-spy samples the threads that hold the interpreter lock while one operation is sent without pause.
With `--of COMMIT`, it samples that version; the names of its files then end with `--suffix`.
"""

import argparse
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report
from benchmarks.load import send
from benchmarks.operations import CONNECTIONS, operations
from benchmarks.stage import environment_of, new_database, prepare
from benchmarks.versions import checked_out
from tests.support.gunicorn import REPOSITORY, GunicornService, Release

FOLDER = REPOSITORY / "docs" / "flames"
OPERATIONS = {"users-me": report.ME, "refresh": report.REFRESH, "users": report.LIST}
# The sampler needs a moment to start and to write its file.
MARGIN_SECONDS = 5


def main() -> None:
    """Record the graphs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flames")
    parser.add_argument("--of", help="the commit to record, in place of the present version")
    parser.add_argument("--suffix", default="", help="the end of the names of the files")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = (
            REPOSITORY if arguments.of is None else stack.enter_context(checked_out(arguments.of))
        )
        database = new_database("userapi_flames")
        service = GunicornService(
            {**environment_of(database), "WEB_CONCURRENCY": "1"},
            release=Release(folder=folder, python=Path(sys.executable)),
        )
        prepare(service, arguments.users, folder=folder)
        stack.enter_context(service)
        (worker,) = service.worker_pids
        requests = operations(service, database)
        FOLDER.mkdir(exist_ok=True)
        for name, operation in OPERATIONS.items():
            path = FOLDER / f"{name}{arguments.suffix}.svg"
            load = threading.Thread(
                target=send,
                args=(service.base_url, requests[operation]()),
                kwargs={
                    "seconds": arguments.seconds + MARGIN_SECONDS,
                    "connections": CONNECTIONS,
                    "service_pids": [service.pid],
                },
            )
            load.start()
            _record(worker, path, title=operation, seconds=arguments.seconds)
            load.join()
            print(path.relative_to(REPOSITORY), flush=True)


def _record(pid: int, path: Path, *, title: str, seconds: int) -> None:
    program = Path(sys.executable).with_name("py-spy")
    subprocess.run(
        [
            *(str(program), "record", "--gil", "--rate", "200"),
            *("--pid", str(pid), "--duration", str(seconds), "--output", str(path)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    svg = path.read_text("utf-8")
    # The graph names the program and the process number.
    start, end = svg.index('id="title"'), svg.index("</text>")
    shown = svg[svg.index(">", start) + 1 : end]
    path.write_text(svg.replace(shown, title).replace(str(REPOSITORY) + "/", ""), "utf-8")


if __name__ == "__main__":
    main()
