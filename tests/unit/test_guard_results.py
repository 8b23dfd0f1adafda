"""The results of `make guards` are stored, and are valid for the tested code only."""

from pathlib import Path

import pytest

from tests.guards.results import Result, Results, state_of

RULE = "A session that has ended is refused"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file in a folder that does not exist yet."""
    return tmp_path / "build" / "guards.jsonl"


def result(*, state: str = "one", noticed: bool = True) -> Result:
    said = "tests/api/test_x.py::test_it[postgresql]" if noticed else "3 passed"
    return Result(rule=RULE, state=state, noticed=noticed, said=said, seconds=1.5)


def test_a_further_run_knows_what_an_interrupted_run_has_found(file: Path) -> None:
    Results(file).add(result())

    assert Results(file).is_noticed(RULE, "one")
    assert not Results(file).is_noticed("Another rule", "one")


def test_a_result_does_not_count_for_other_code_but_its_test_is_known(file: Path) -> None:
    Results(file).add(result())

    assert not Results(file).is_noticed(RULE, "two")
    assert Results(file).test_that_failed(RULE) == "tests/api/test_x.py::test_it"


def test_a_guard_that_no_test_noticed_is_removed_again(file: Path) -> None:
    results = Results(file)
    results.add(result())
    results.add(result(noticed=False))

    for known in (results, Results(file)):
        assert not known.is_noticed(RULE, "one")
        assert known.test_that_failed(RULE) is None


def test_a_line_that_was_cut_off_spoils_no_other(file: Path) -> None:
    results = Results(file)
    results.add(result(state="one"))
    with file.open("a", encoding="utf-8") as cut_off:
        cut_off.write('{"rule": "Ano')
    Results(file).add(result(state="two"))

    assert Results(file).is_noticed(RULE, "two")


def test_the_state_changes_with_any_file(tmp_path: Path) -> None:
    folder = tmp_path / "userapi"
    (folder / "__pycache__").mkdir(parents=True)
    module = folder / "module.py"
    module.write_text("one", "utf-8")
    before = state_of([folder])
    (folder / "__pycache__" / "module.pyc").write_bytes(b"compiled")
    assert state_of([folder]) == before

    module.write_text("two", "utf-8")
    assert state_of([folder]) != before
    module.write_text("one", "utf-8")
    (folder / "more.py").write_text("", "utf-8")
    assert state_of([folder]) != before
