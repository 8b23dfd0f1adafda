"""Writes `userapi_client/synchronous/` from `userapi_client/asynchronous/`.

Both do the same; only who waits differs. `runtime.py` is written by hand in both.

python scripts/generate_synchronous.py
"""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "userapi_client"
SOURCE, TARGET = PACKAGE / "asynchronous", PACKAGE / "synchronous"
BY_HAND = ("__init__.py", "runtime.py")
NOTE = "# Generated from asynchronous/{name} by scripts/generate_synchronous.py; do not edit.\n"

REPLACEMENTS = [
    (r"userapi_client\.asynchronous", "userapi_client.synchronous"),
    (r"\bAwaitable\[(\w+(?:\[\w+\])?)\]", r"\1"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAwaitable, ", ""),
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baclose\b", "close"),
    (r"\bAsync([A-Z])", r"\1"),
]


def main() -> None:
    """Write every module."""
    for name, text in sorted(rendered().items()):
        (TARGET / name).write_text(text, "utf-8")


def rendered() -> dict[str, str]:
    """Return the text of each module, not formatted yet."""
    return {
        path.name: NOTE.format(name=path.name) + _synchronous(path.read_text("utf-8"))
        for path in sorted(SOURCE.glob("*.py"))
        if path.name not in BY_HAND
    }


def _synchronous(text: str) -> str:
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return text


if __name__ == "__main__":
    main()
