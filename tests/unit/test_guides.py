"""The documents: no link is dead."""

import re
from pathlib import Path

import pytest

from tests.support.gunicorn import REPOSITORY

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


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_no_link_is_dead(guide: Path) -> None:
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
