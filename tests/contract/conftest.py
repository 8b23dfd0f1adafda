"""Every way to run Redis, started once when a test needs it first and emptied after each test."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.clusters.topologies import Kind, Topology, running
from tests.support.guardian import guardian
from tests.support.servers import new_run_directory


@pytest.fixture(scope="session")
def topologies() -> Iterator[Callable[[Kind], Topology]]:
    """Return what starts Redis in a given way."""
    directory = new_run_directory()
    started: dict[Kind, Topology] = {}
    with ExitStack() as stack:

        def start(kind: Kind) -> Topology:
            if kind not in started:
                started[kind] = stack.enter_context(running(kind, directory / kind))
            return started[kind]

        yield start
    shutil.rmtree(directory, ignore_errors=True)
    guardian.keep(directory)


@pytest.fixture
def topology(
    request: pytest.FixtureRequest, topologies: Callable[[Kind], Topology]
) -> Iterator[Topology]:
    """Return an empty Redis of the kind that is the parameter of the test."""
    topology = topologies(request.param)
    yield topology
    topology.empty()
