"""nginx with the shipped configuration, in front of a service that a test has started."""

import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from signal import SIGQUIT
from typing import Self

from tests.support.guardian import guardian
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.programs import NGINX
from tests.support.servers import end_process

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
LIVE = "/api/v1/health/live"


class NginxProxy:
    """nginx on a port of its own. Only port, address of the service and folders are other ones."""

    def __init__(self, service_port: int, folder: Path) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self._folder = folder
        server = (FOLDER / "default.conf").read_text("utf-8")
        self.configuration = server.replace("listen 8080;", f"listen 127.0.0.1:{self.port};")
        assert self.configuration.count(f":{self.port};") == 1
        # Of a pod: the other deployments differ from it in where the service is.
        pod = (FOLDER / "kubernetes.conf").read_text("utf-8")
        pod = pod.replace("127.0.0.1:8000", f"127.0.0.1:{service_port}")
        pod = pod.replace("listen 9101;", f"listen 127.0.0.1:{self.metrics_port};")
        self.configuration += pod
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of nginx's master. Raises RuntimeError when it is stopped."""
        if self._process is None:
            raise RuntimeError("nginx is not running")
        return self._process.pid

    @property
    def error_log(self) -> str:
        """What nginx has complained of so far."""
        return (self._folder / "error.log").read_text("utf-8")

    def __enter__(self) -> Self:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {self._folder}/{kind};\n" for kind in kinds)
        (self._folder / "nginx.conf").write_text(
            f"pid {self._folder}/nginx.pid;\nerror_log {self._folder}/error.log;\n"
            f"worker_processes 1;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}"
            f"{self.configuration}}}\n"
        )
        self._process = subprocess.Popen(
            [
                NGINX.require(),
                "-p",
                self._folder,
                "-c",
                self._folder / "nginx.conf",
                "-g",
                "daemon off;",
            ],
            stdin=subprocess.DEVNULL,
        )
        guardian.watch(self._process.pid, ended_by=SIGQUIT)
        wait_until(self._is_live)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            guardian.release(self._process.pid)
            end_process(self._process, SIGQUIT)
            self._process = None

    def _is_live(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}{LIVE}", timeout=1).close()
        except OSError:
            return False
        return True
