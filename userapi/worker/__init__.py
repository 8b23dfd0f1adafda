"""The worker: background tasks, each in its own thread, so that an unavailable mail server or
broker delays nothing else.

`flask worker` runs it as a process; by default it runs inside the service. Several can run: one
publishes and the others are on standby; the database distributes mails and seals.
"""

from userapi.worker.embedded import EmbeddedWorker
from userapi.worker.loop import Task, Worker
from userapi.worker.tasks import build_worker, tasks_of

__all__ = ["EmbeddedWorker", "Task", "Worker", "build_worker", "tasks_of"]
