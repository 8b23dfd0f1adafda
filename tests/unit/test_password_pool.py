"""The hashing pool: bounded, at a lower priority than requests, and usable after a fork."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from userapi.passwords.hashing_pool import (
    LOWER_PRIORITY,
    LOWEST_PRIORITY,
    Busy,
    HashingPool,
    background_pool,
)

DEADLINE_SECONDS = 60


def _wait_until_waiting(pool: HashingPool, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while pool.waiting != count:
        assert time.monotonic() < deadline, f"{pool.waiting} wait, not {count}"
        time.sleep(0.001)


def test_the_caller_gets_what_the_function_returns() -> None:
    pool = HashingPool(queue_limit=64)

    assert pool.run(lambda: "hashed") == "hashed"


def test_the_caller_gets_exceptions_of_the_function_and_the_slot_is_free_again() -> None:
    pool = HashingPool(queue_limit=0, threads=1)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            pool.run(lambda: 1 // 0)

    assert pool.run(lambda: "hashed") == "hashed"


def test_200_concurrent_callers_get_a_hash_or_busy() -> None:
    pool = HashingPool(queue_limit=64, threads=2)
    opened, all_asked = threading.Event(), threading.Barrier(200)

    def ask(number: int) -> int | Busy:
        all_asked.wait(DEADLINE_SECONDS)
        try:
            return pool.run(lambda: opened.wait(DEADLINE_SECONDS) and number * number)
        except Busy as busy:
            return busy

    with ThreadPoolExecutor(200) as callers:
        answers = [callers.submit(ask, number) for number in range(200)]
        try:
            _wait_until_waiting(pool, 64)
            deadline = time.monotonic() + DEADLINE_SECONDS
            while sum(answer.done() for answer in answers) < 134:
                assert time.monotonic() < deadline, "the others were not refused at once"
                time.sleep(0.001)
        finally:
            opened.set()
        results = [answer.result() for answer in answers]

    hashed = [(number, result) for number, result in enumerate(results) if type(result) is int]
    refused = [result for result in results if isinstance(result, Busy)]
    assert len(hashed) == 66
    assert all(result == number * number for number, result in hashed)
    assert len(refused) == 134
    assert {(busy.code, busy.retry_after) for busy in refused} == {("busy", 1)}
    assert pool.waiting == 0
    assert pool.run(lambda: "hashed") == "hashed"


def test_at_most_one_hash_runs_on_each_thread() -> None:
    pool = HashingPool(queue_limit=64, threads=2)
    lock = threading.Lock()
    running: list[int] = [0]
    most: list[int] = [0]
    pair = threading.Barrier(2)

    def hashing() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        pair.wait(DEADLINE_SECONDS)  # Two always run at once; a third would be counted.
        time.sleep(0.005)
        with lock:
            running[0] -= 1

    with ThreadPoolExecutor(20) as callers:
        for done in [callers.submit(pool.run, hashing) for _ in range(20)]:
            done.result()

    assert most[0] == 2


def test_hashing_runs_at_a_lower_priority_than_requests() -> None:
    pool = HashingPool(queue_limit=64)

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = priority()
    assert pool.run(priority) == min(own + LOWER_PRIORITY, LOWEST_PRIORITY)
    assert priority() == own


def test_hash_and_wait_are_observed_in_the_thread_of_the_caller() -> None:
    hashes: list[tuple[float, int]] = []
    waits: list[tuple[float, int]] = []
    pool = HashingPool(
        queue_limit=64,
        observe=lambda seconds: hashes.append((seconds, threading.get_ident())),
        observe_wait=lambda seconds: waits.append((seconds, threading.get_ident())),
    )

    pool.run(lambda: time.sleep(0.02))

    [(hash_seconds, hash_thread)] = hashes
    [(wait_seconds, wait_thread)] = waits
    assert 0.02 <= hash_seconds < DEADLINE_SECONDS
    assert 0 <= wait_seconds < DEADLINE_SECONDS
    assert hash_thread == wait_thread == threading.get_ident()


def test_a_pool_used_before_a_fork_works_in_the_child() -> None:
    """Runs in a process of its own, because a test runner with threads cannot fork safely."""
    script = """
import os, threading, time
from userapi.passwords.hashing_pool import HashingPool

pool = HashingPool(queue_limit=64, threads=1)
assert pool.run(lambda: "parent") == "parent"
blocked = threading.Event()
threading.Thread(target=pool.run, args=(lambda: blocked.wait(30),), daemon=True).start()
threading.Thread(target=pool.run, args=(lambda: None,), daemon=True).start()
while pool.waiting != 1:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    works = pool.waiting == 0 and pool.run(lambda: "child") == "child" and pool.waiting == 0
    os._exit(0 if works else 1)
_, status = os.waitpid(child, 0)
blocked.set()
assert pool.run(lambda: "parent") == "parent"
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=120, capture_output=True)

    assert ended.returncode == 0, ended.stderr.decode()


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="needs setpriority(2)")
def test_the_background_pool_has_the_lowest_priority_and_leaves_cores_to_log_ins() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    logging_in, waiting = HashingPool(queue_limit=64), background_pool()

    assert priority() <= logging_in.run(priority) <= waiting.run(priority) == LOWEST_PRIORITY
    assert waiting.threads <= max(1, logging_in.threads // 2)


def test_an_interpreter_that_has_hashed_exits_at_once() -> None:
    script = (
        "from userapi.passwords.hashing_pool import HashingPool\n"
        "HashingPool(queue_limit=64).run(lambda: None)\n"
    )

    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0


def test_an_unreferenced_pool_is_freed() -> None:
    pool = HashingPool(queue_limit=64)
    pool.run(lambda: None)
    kept = weakref.ref(pool)

    del pool
    gc.collect()

    assert kept() is None


def test_a_full_pool_is_busy_before_any_work() -> None:
    pool = HashingPool(queue_limit=0, threads=1)
    pool.require_room()
    begun, enough = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        enough.wait(10)

    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(pool.run, hold)
        assert begun.wait(10)
        with pytest.raises(Busy):
            pool.require_room()
        enough.set()
        held.result()

    pool.require_room()
