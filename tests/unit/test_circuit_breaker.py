"""The breaker in front of Redis, with time in the hand of the test."""

import logging

import pytest

from userapi.infrastructure.redis_client import CircuitBreaker


class Seconds:
    """Seconds that pass when a test says so."""

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


def test_everybody_is_let_through_while_nothing_fails(breaker: CircuitBreaker) -> None:
    assert breaker.is_closed
    assert [breaker.lets_through() for _ in range(3)] == [True] * 3


def test_a_failure_spares_everybody_for_a_while(breaker: CircuitBreaker, seconds: Seconds) -> None:
    breaker.failed(OSError())

    assert not breaker.is_closed
    seconds.now = 1.9
    assert [breaker.lets_through() for _ in range(3)] == [False] * 3


def test_after_the_while_one_tries_and_the_others_wait(
    breaker: CircuitBreaker, seconds: Seconds
) -> None:
    breaker.failed(OSError())

    seconds.now = 2.0
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]
    # Whoever tried has not come back: after another while the next one does.
    seconds.now = 4.0
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]


def test_a_success_lets_everybody_through_again(breaker: CircuitBreaker, seconds: Seconds) -> None:
    breaker.failed(OSError())
    seconds.now = 2.0
    breaker.lets_through()

    breaker.succeeded()

    assert [breaker.lets_through() for _ in range(3)] == [True] * 3


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
