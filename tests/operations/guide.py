"""The `sh` blocks of docs/operating.md, and which of them the tests of this folder run."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.gunicorn import REPOSITORY

GUIDE = REPOSITORY / "docs" / "operating.md"
RUNNERS = {"run", "start"}


@dataclass(frozen=True, slots=True)
class Block:
    """A block of shell commands: the `number`-th under its heading."""

    section: str
    number: int
    line: int
    text: str


@cache
def blocks() -> dict[tuple[str, int], Block]:
    """Return all blocks of the guide by heading and number."""
    return {(block.section, block.number): block for block in blocks_of(GUIDE.read_text("utf-8"))}


def blocks_of(markdown: str) -> Iterator[Block]:
    """Yield the `sh` blocks of a document."""
    section, number = "", 0
    language: str | None = None
    begun, text = 0, ""
    for position, line in enumerate(markdown.splitlines(keepends=True), 1):
        fence = re.match(r"\s*(```|~~~)(\S*)", line)
        if fence and language is None:
            language, begun, text = fence[2], position, ""
        elif fence:
            if language in {"sh", "bash", "shell", "console"}:
                number += 1
                yield Block(section, number, begun, text)
            language = None
        elif language is not None:
            text += line
        elif heading := re.match(r"#+ +(.*\S)", line):
            section, number = heading[1], 0


def run_by_tests(folder: Path = Path(__file__).parent) -> set[tuple[str, int]]:
    """Return heading and number of the blocks that the tests of a folder run."""
    return {
        called
        for file in sorted(folder.glob("test_*.py"))
        for called in runs_of(file.read_text("utf-8"))
    }


def runs_of(source: str) -> Iterator[tuple[str, int]]:
    """Yield what test functions of a module run by `stage.run` and `stage.start`."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
            continue
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            values = [a.value for a in call.args if isinstance(a, ast.Constant)]
            if call.func.attr in RUNNERS and values and isinstance(values[0], str):
                number = values[1] if len(values) > 1 else 1
                assert isinstance(number, int)
                yield values[0], number
