"""Challenges of passkeys: what they contain, and how long they are valid."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from userapi.factors.challenges import Ceremony, Challenges, Purpose
from userapi.infrastructure.encryption import EncryptionKeys

KEY = "uQ2nVb7sKe9xRw4yTm1zHc6pLd3gJf8a"
OTHER_KEY = "aF8jGd3lPc6hZm1tYw4rXe9kSb7vNq2u"
SESSION = UUID("01900000-0000-7000-8000-000000000001")
STEP_UP = Ceremony(purpose=Purpose.STEP_UP, bound_to=SESSION)


@dataclass
class FixedClock:
    """A clock that only a test moves."""

    moment: datetime = datetime(2026, 1, 31, 12, 30, 15, 123456, UTC)

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


def challenges(clock: FixedClock, key: str = KEY, *previous: str) -> Challenges:
    return Challenges(encryption=EncryptionKeys(key, previous=previous), clock=clock)


def test_a_challenge_contains_its_purpose_and_its_time_of_issue(
    clock: FixedClock,
) -> None:
    issued = challenges(clock).issue(STEP_UP)

    read = challenges(clock).read(issued)

    assert read is not None
    assert (read.value, read.ceremony, read.issued_at) == (issued, STEP_UP, clock.now())


def test_each_challenge_is_new_and_shows_nothing(clock: FixedClock) -> None:
    issued = {challenges(clock).issue(STEP_UP) for _ in range(100)}

    assert len(issued) == 100
    assert all(SESSION.bytes not in challenge for challenge in issued)
    # WebAuthn Level 3 §13.4.3 asks for 16 bytes at least; browsers know no limit near this one.
    assert {len(challenge) for challenge in issued} == {78}


@pytest.mark.parametrize("value", [b"", b"\x01", bytes(78), b"\x01" + bytes(77)])
def test_what_the_service_has_not_issued_is_no_challenge(clock: FixedClock, value: bytes) -> None:
    assert challenges(clock).read(value) is None


def test_a_changed_challenge_is_none(clock: FixedClock) -> None:
    issued = challenges(clock).issue(STEP_UP)

    for position in range(len(issued)):
        changed = bytearray(issued)
        changed[position] ^= 1
        assert challenges(clock).read(bytes(changed)) is None


def test_a_value_sealed_for_something_else_is_no_challenge(clock: FixedClock) -> None:
    sealed = EncryptionKeys(KEY).seal(bytes(41), "totp")

    assert challenges(clock).read(sealed) is None


def test_a_challenge_survives_the_rotation_of_the_key(clock: FixedClock) -> None:
    issued = challenges(clock).issue(STEP_UP)

    assert challenges(clock, OTHER_KEY, KEY).read(issued) is not None
    assert challenges(clock, OTHER_KEY).read(issued) is None


@pytest.mark.parametrize(("seconds", "is_fresh"), [(0, True), (300, True), (300.001, False)])
def test_a_challenge_is_good_for_300_seconds(
    clock: FixedClock, seconds: float, is_fresh: bool
) -> None:
    service = challenges(clock)
    read = service.read(service.issue(STEP_UP))
    assert read is not None

    clock.moment += timedelta(seconds=seconds)

    assert service.is_fresh(read) is is_fresh


def test_a_challenge_of_a_server_whose_clock_is_ahead_is_good(clock: FixedClock) -> None:
    ahead = FixedClock(clock.moment + timedelta(seconds=5))

    read = challenges(clock).read(challenges(ahead).issue(STEP_UP))

    assert read is not None
    assert challenges(clock).is_fresh(read)
