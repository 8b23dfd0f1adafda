"""Fixtures of the client's tests. None of them needs the service."""

from collections.abc import Callable, Iterator

import either
import pytest
from hostile import Clock, HostileService


@pytest.fixture
def service() -> Iterator[HostileService]:
    with HostileService() as service:
        yield service


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=either.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def make_verifier(
    kind: str, service: HostileService
) -> Iterator[Callable[..., either.AnyVerifier]]:
    yield from either.verifiers(kind, service.url)


@pytest.fixture
def make_client(kind: str, service: HostileService) -> Iterator[Callable[..., either.AnyClient]]:
    yield from either.clients(kind, service.url)
