"""The targets of make that run tests: together they run every test, and `.ci/run` no test twice."""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from configparser import ConfigParser

import pytest

from tests.support.gunicorn import REPOSITORY

STAGES = ("thorough", "slow", "chaos", "cluster")


def expressions() -> dict[str, str]:
    """Return the marker expression of each target that runs pytest."""
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    parser = ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    options = shlex.split(parser["tool:pytest"]["addopts"], comments=True)
    default = options[options.index("-m") + 1]
    found = {}
    for target in re.finditer(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE):
        name, recipe = target.groups()
        run = re.search(r'(?:pytest|\$\(PYTEST\))(?: -m ("[^"]*"|\S+))?', recipe)
        if run:
            found[name] = (run.group(1) or default).strip('"')
    return found


def selects(expression: str, marks: Mapping[str, bool]) -> bool:
    """Return whether an expression of `-m` selects a test with these marks."""

    def value(node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return marks[name]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not value(operand)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(map(value, values))
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(map(value, values))
        raise ValueError(expression)

    return value(ast.parse(expression, mode="eval").body)


def combinations() -> Iterator[dict[str, bool]]:
    """Return every set of marks that decide where a test runs."""
    for values in itertools.product((False, True), repeat=len(STAGES)):
        yield dict(zip(STAGES, values, strict=True))


def test_every_test_runs_in_a_stage() -> None:
    stages = expressions()

    assert stages.keys() == {"test", "test-thorough", "test-slow", "cluster-test", "test-busy"}
    for marks in combinations():
        assert any(selects(expression, marks) for expression in stages.values()), marks


def test_ci_runs_every_test_once_that_is_not_slow() -> None:
    commands = (REPOSITORY / ".ci" / "run").read_text("utf-8").split("\n")
    stages = expressions()
    in_ci = [stages[line.split()[1]] for line in commands if line.removeprefix("make ") in stages]

    for marks in combinations():
        if not marks["slow"] and not marks["chaos"]:
            assert sum(selects(expression, marks) for expression in in_ci) == 1, marks


def test_a_busy_run_has_the_tests_of_both_parts() -> None:
    stages = expressions()

    for marks in combinations():
        parts = [selects(stages[part], marks) for part in ("test", "test-thorough")]
        assert selects(stages["test-busy"], marks) is any(parts), marks


def test_only_tests_of_clusters_are_marked_so() -> None:
    """`make cluster-test` looks for them in one folder."""
    marked = {
        file.relative_to(REPOSITORY / "tests").parts[0]
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        if re.search(r"pytest\.mark\.cluster\b", file.read_text("utf-8"))
    }

    assert marked == {"cluster"}


@pytest.mark.parametrize(
    ("expression", "selected"),
    [("slow or chaos", True), ("not slow", False), ("slow and not chaos", True), ("chaos", False)],
)
def test_an_expression_is_read_like_pytest_does(expression: str, selected: bool) -> None:
    marks = dict.fromkeys(STAGES, False) | {"slow": True}

    assert selects(expression, marks) is selected
