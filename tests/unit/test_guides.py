"""The documents: no link is broken, the index lists every guide, and every command exists."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from flask import Flask

from tests.support.deployments import ENVIRONMENT, build_app
from tests.support.gunicorn import REPOSITORY
from userapi.audit.actions import AuditAction
from userapi.cli import COMMANDS, LazyCommand
from userapi.clock import SystemClock
from userapi.events.catalogue import EventType
from userapi.settings import Settings

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
GUIDES = sorted(
    path.relative_to(REPOSITORY)
    for place in (REPOSITORY, REPOSITORY / "docs", REPOSITORY / "deploy")
    for path in place.glob("*.md")
)


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", [*GUIDES, Path("client/README.md")], ids=str)
def test_no_link_is_broken(guide: Path) -> None:
    dead = []
    for target in LINK.findall(without_code((REPOSITORY / guide).read_text("utf-8"))):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (REPOSITORY / guide.parent / name).resolve() if name else REPOSITORY / guide
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            dead.append(target)

    assert dead == []


def test_every_guide_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text("utf-8")
    guides = {path.name for path in GUIDES if path.parent == Path("docs")} - {"README.md"}

    assert [name for name in sorted(guides) if f"]({name})" not in index] == []
    assert "docs/README.md" in (REPOSITORY / "README.md").read_text("utf-8")


# How many requirements of levels 1 and 2 each section of ASVS 5.0.0 has: they come first and are
# numbered without a gap, but for those of level 3 alone.
REQUIREMENTS = {
    **{"V2.1": 3, "V2.2": 3, "V2.3": 4, "V2.4": 1},
    **{"V3.2": 2, "V3.3": 4, "V3.4": 6, "V3.5": 5, "V3.7": 2},
    **{"V4.1": 3, "V4.2": 1, "V4.3": 2, "V4.4": 4},
    **{"V5.1": 1, "V5.2": 3, "V5.3": 2, "V5.4": 3},
    **{"V6.1": 3, "V6.2": 12, "V6.3": 4, "V6.4": 4, "V6.5": 5, "V6.6": 3, "V6.8": 4},
    **{"V7.1": 3, "V7.2": 4, "V7.3": 2, "V7.4": 5, "V7.5": 2, "V7.6": 2},
    **{"V8.1": 2, "V8.2": 3, "V8.3": 1, "V8.4": 1},
    **{"V9.1": 3, "V9.2": 4},
    **{"V10.1": 2, "V10.2": 2, "V10.3": 4, "V10.4": 11, "V10.5": 5, "V10.6": 2, "V10.7": 3},
    **{"V11.1": 2, "V11.2": 3, "V11.3": 3, "V11.4": 4, "V11.5": 1, "V11.6": 1},
    **{"V12.1": 3, "V12.2": 2, "V12.3": 4},
    **{"V13.1": 1, "V13.2": 5, "V13.3": 2, "V13.4": 5},
    **{"V14.1": 2, "V14.2": 4, "V14.3": 3},
    **{"V15.1": 3, "V15.2": 3, "V15.3": 7},
    **{"V16.1": 1, "V16.2": 5, "V16.3": 4, "V16.4": 3, "V16.5": 3},
}


def asvs_rows() -> list[list[str]]:
    text = (REPOSITORY / "docs" / "security.md").read_text("utf-8")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| V\d", line)
    ]


def test_every_requirement_of_asvs_has_its_line() -> None:
    expected = [
        f"{section}.{number}"
        for section, count in REQUIREMENTS.items()
        for number in range(1, count + 1)
    ]

    assert [row[0] for row in asvs_rows()] == expected


def test_every_line_of_asvs_names_a_test_that_exists_or_a_reason() -> None:
    without = []
    for number, level, how, evidence in asvs_rows():
        assert level in {"1", "2"}, number
        named = re.fullmatch(r"`(tests/\S+\.py)::(test_\w+)`", evidence)
        if named is None:
            assert "::" not in evidence and len(evidence) > 5, number
            continue
        path = REPOSITORY / named[1]
        if not path.exists() or f"def {named[2]}(" not in path.read_text("utf-8"):
            without.append((number, evidence))
        assert how not in {"", "–"}, number

    assert without == []


COMMAND = re.compile(r"(?<![\w`/.-])(?<!the )flask ([a-z][^`|#>&\n]*)")


def commands_of(guide: Path) -> list[str]:
    """Return the `flask` commands in a guide, with continued lines joined."""
    text = (REPOSITORY / guide).read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    in_lines = re.findall(r"`(flask [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [found for part in (*blocks, *in_lines) for found in COMMAND.findall(part)]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """Return an application, whose commands and endpoints the guides name."""
    folder = tmp_path_factory.mktemp("guides")
    return build_app(ENVIRONMENT, clock=SystemClock(), instance_dir=folder)


@pytest.fixture(scope="module")
def names(app: Flask) -> set[str]:
    """Return the names of actions, events and endpoints, and the texts of the code."""
    written = "".join(path.read_text("utf-8") for path in (REPOSITORY / "userapi").rglob("*.py"))
    texts = re.findall(r'"([a-z_.]+)"', written)
    return {*AuditAction, *EventType, *app.view_functions, *texts}


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_every_command_is_there_with_its_options(guide: Path, app: Flask) -> None:
    root = app.cli
    context = click.Context(root, info_name="flask")
    for command in commands_of(guide):
        found: click.Command = root
        words = command.split()
        while words and isinstance(found, click.Group):
            name = words.pop(0)
            if "|" in name or name.startswith("-"):
                break
            deeper = found.get_command(context, name)
            assert deeper is not None, f"flask {command}: there is no {name}"
            found = deeper.load() if isinstance(deeper, LazyCommand) else deeper
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        options = {word.split("=")[0] for word in words if word.startswith("-")}
        assert options <= known or isinstance(found, click.Group), f"flask {command}: {options}"


# Names of actions, events, endpoints and lines of the log, as the guides write them.
NAME = re.compile(
    r"(?:`|--action )(?!role\.sql)"
    r"((?:audit|auth|database|relay|request|role|session|user|worker)\.[a-z_.]+)"
)


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_every_name_in_a_guide_exists(guide: Path, names: set[str]) -> None:
    """A guide named an action that no row has."""
    named = set(NAME.findall((REPOSITORY / guide).read_text("utf-8")))

    assert named - names == set()


def test_the_guide_names_the_file_of_the_embedded_database(tmp_path: Path) -> None:
    settings = Settings.from_env({}, instance_dir=tmp_path)
    name = Path(urlsplit(settings.database_url).path).name

    assert f"sqlite3 instance/{name} " in (REPOSITORY / "docs/operating.md").read_text("utf-8")


def test_no_command_is_described_by_half_a_sentence(app: Flask) -> None:
    """What a list of commands has no room for was cut off."""
    root = app.cli
    context = click.Context(root, info_name="flask")
    cut_off = []
    for name in (name for name in root.list_commands(context) if name in COMMANDS):
        listed = root.get_command(context, name)
        assert isinstance(listed, LazyCommand)
        group = listed.load()
        assert listed.help == group.help
        if name == "db":
            continue  # Its lines are Flask-Migrate's.
        for lazy in getattr(group, "commands", {}).values():
            if isinstance(lazy, LazyCommand):
                assert lazy.get_short_help_str(80) == lazy.load().get_short_help_str(80)
        page = group.get_help(click.Context(group, info_name=name, terminal_width=80))
        cut_off += [line for line in page.splitlines()[1:] if line.endswith("...")]

    assert cut_off == []
