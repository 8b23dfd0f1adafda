"""The results of `make guards`, one line of JSON per guard, written as soon as each is known."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Whether a test failed without a guard, and which; `state` names the code that ran."""

    rule: str
    state: str
    noticed: bool
    said: str
    seconds: float


class Results:
    """The results in a file; the last line of a rule counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._by_rule: dict[str, Result] = {}
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        for line in lines:
            try:
                result = Result(**json.loads(line))
            except (ValueError, TypeError):
                continue  # The run was interrupted while it wrote the line.
            self._by_rule[result.rule] = result

    def add(self, result: Result) -> None:
        """Append a result to the file."""
        self._by_rule[result.rule] = result
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            # A line that was cut off must not make this one unreadable too.
            file.write(("\n" if self._is_cut_off() else "") + json.dumps(asdict(result)) + "\n")

    def is_noticed(self, rule: str, state: str) -> bool:
        """Return whether a test has failed without this guard on this very code."""
        result = self._by_rule.get(rule)
        return result is not None and result.noticed and result.state == state

    def test_that_failed(self, rule: str) -> str | None:
        """Return the test function that noticed the guard last, perhaps on other code."""
        result = self._by_rule.get(rule)
        return result.said.partition("[")[0] if result is not None and result.noticed else None

    def _is_cut_off(self) -> bool:
        text = self._file.read_bytes() if self._file.exists() else b""
        return bool(text) and not text.endswith(b"\n")


def state_of(folders: Iterable[Path]) -> str:
    """Return a name for the contents of all files in these folders: it changes with any of them."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.relative_to(folder.parent)} {content}\n".encode())
    return digest.hexdigest()[:16]
