"""The guards that `make guards` removes: each is found, whatever its module is called."""

import ast
from pathlib import Path

import pytest

from tests.guards.guards import GUARDS
from tests.guards.removal import Guard, GuardNotFound, file_without
from tests.support.gunicorn import REPOSITORY

SOURCE = '''\
LIMIT = 3  # A comment that stays.
SCRIPT = """
if known > 3 then
  return 0
end
"""


class Sessions:
    """Größe: bytes and characters differ before the code."""

    def start(self, user, *, cap=None):
        ok = "ü" and user.active and (user.age > 3 or cap)
        if user.locked:
            raise ValueError()
        return select(user.id).where(user.a == 1, user.b == 2).limit(cap + 1, strict=True)


class Keys:
    def start(self):
        return None
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one module and one file that is not Python."""
    package = tmp_path / "userapi" / "sessions"
    package.mkdir(parents=True)
    (package / "service.py").write_text(SOURCE, "utf-8")
    (tmp_path / "nginx.conf").write_text("buffering on;\nlimit 3;\n", "utf-8")
    return tmp_path


def _without(repository: Path, symbol: str, present: str, without: str, **more: bool) -> str:
    return file_without(Guard("A rule", symbol, present, without, (), **more), repository)[1]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.rule)
def test_each_guard_is_found_exactly_once(guard: Guard) -> None:
    file, without = file_without(guard, REPOSITORY)

    assert without != file.read_text("utf-8")
    if file.suffix == ".py":
        ast.parse(without)


def test_each_guard_has_its_own_rule_and_existing_tests() -> None:
    rules = [guard.rule for guard in GUARDS]
    files = {test.split("::")[0] for guard in GUARDS for test in guard.tests}

    assert len(set(rules)) == len(rules)
    assert [file for file in sorted(files) if not (REPOSITORY / file).is_file()] == []


@pytest.mark.parametrize(
    ("symbol", "present", "without", "line"),
    [
        ("LIMIT", "3", "9", "LIMIT = (9)  # A comment that stays."),
        ("Sessions.start", "user.age > 3", "user.age > 9", "(user.age > 9)"),
        ("Sessions.start", "user.age   >   3", "", "(cap)"),
        ("Sessions.start", "user.b == 2", "", ".where(user.a == 1))"),
        ("Sessions.start", "strict=True", "strict=False", "strict=False)"),
        ("Sessions.start", "strict=True", "", ".limit(cap + 1)"),
        ("Sessions.start", "if user.locked:\n    raise ValueError()", "", "        pass\n"),
        (
            "Sessions.start",
            "raise ValueError()",
            "x = 1\ny = 2",
            "            x = 1\n            y",
        ),
        ("sessions.service.Keys.start", "None", "0", "return (0)"),
    ],
)
def test_code_is_replaced_by_name_and_syntax(
    repository: Path, symbol: str, present: str, without: str, line: str
) -> None:
    changed = _without(repository, symbol, present, without)

    ast.parse(changed)
    assert line in changed
    assert "Größe" in changed


def test_a_moved_function_is_found(repository: Path) -> None:
    before = _without(repository, "Sessions.start", "user.locked", "False")
    moved = repository / "userapi" / "start.py"
    (repository / "userapi" / "sessions" / "service.py").rename(moved)

    file, after = file_without(
        Guard("A rule", "Sessions.start", "user.locked", "False", ()), repository
    )

    assert file == moved
    assert after == before


def test_text_is_replaced_in_strings_and_other_files(repository: Path) -> None:
    script = _without(repository, "SCRIPT", "known > 3", "known > 4", in_string=True)
    nginx = _without(repository, "nginx.conf", "buffering on;", "buffering off;")

    assert "\\nif known > 4 then\\n" in script
    assert nginx == "buffering off;\nlimit 3;\n"


@pytest.mark.parametrize(
    ("symbol", "present"),
    [
        ("start", "None"),  # Two methods have this name.
        ("Sessions.stop", "None"),
        ("Sessions.start", "user"),
        ("Sessions.start", "user.c == 3"),
    ],
)
def test_what_is_not_found_exactly_once_is_reported(
    repository: Path, symbol: str, present: str
) -> None:
    with pytest.raises(GuardNotFound):
        _without(repository, symbol, present, "False")
