"""The circuit breaker for Redis, with time that a test controls."""

import logging

import pytest

from userapi.infrastructure.circuit_breaker import CircuitBreaker


class Seconds:
    """Seconds that pass when a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(seconds: Seconds) -> CircuitBreaker:
    return CircuitBreaker(2.0, seconds_now=seconds)


def test_every_call_is_allowed_while_nothing_fails(breaker: CircuitBreaker) -> None:
    assert breaker.is_closed
    assert [breaker.allows_call() for _ in range(3)] == [True] * 3


def test_a_failure_rejects_calls_for_a_while(breaker: CircuitBreaker, seconds: Seconds) -> None:
    breaker.failed(OSError())

    assert not breaker.is_closed
    seconds.now = 1.9
    assert [breaker.allows_call() for _ in range(3)] == [False] * 3


def test_after_the_interval_one_call_is_allowed(breaker: CircuitBreaker, seconds: Seconds) -> None:
    breaker.failed(OSError())

    seconds.now = 2.0
    assert [breaker.allows_call() for _ in range(3)] == [True, False, False]
    # The trial has not finished: after another interval the next one is allowed.
    seconds.now = 4.0
    assert [breaker.allows_call() for _ in range(3)] == [True, False, False]


def test_a_success_allows_every_call_again(breaker: CircuitBreaker, seconds: Seconds) -> None:
    breaker.failed(OSError())
    seconds.now = 2.0
    breaker.allows_call()

    breaker.succeeded()

    assert [breaker.allows_call() for _ in range(3)] == [True] * 3


def test_an_outage_is_logged_once_with_how_often_it_was_felt(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            breaker.failed(TimeoutError())
        breaker.succeeded()
        breaker.succeeded()

    # Where no application has been made yet, structlog writes by itself.
    lines = [record.getMessage() for record in caplog.records]
    away, back = lines or capsys.readouterr().out.splitlines()
    assert "redis.unavailable" in away and "TimeoutError" in away
    assert "redis.back" in back and "3" in back
