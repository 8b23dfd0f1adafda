"""Commands and scripts in the protocol of Redis, encoded once and sent any number of times.

This module does not import redis-py, so that code that only names commands starts without it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

SERVER_ID_CHARACTERS = 8
# Never exists.
PROBE_KEY = "userapi:probe"


class ServerId:
    """A word that each connection replaces by the id of its server process."""


SERVER_ID = ServerId()
Word = bytes | str | int | ServerId


@dataclass(frozen=True, slots=True)
class Command:
    """A command in the protocol of Redis, encoded once and sent any number of times.

    `pieces` is the encoded command, cut where the id of the server belongs.
    """

    words: tuple[Word, ...]
    pieces: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", _encoded(self.words))

    @property
    def key(self) -> str:
        """The first key; all others have the same tag."""
        return str(self.words[3] if self.words[0] == "EVALSHA" else self.words[1])

    def with_script_text(self) -> "Command":
        """Return the command with the text of its script, for a server that may not know it."""
        if self.words[0] != "EVALSHA":
            return self
        _, sha, *rest = self.words
        return Command(("EVAL", script_of(sha).text, *rest))


def command(*words: Word) -> Command:
    """Return the command with these words."""
    return Command(words)


class RedisClient(Protocol):
    """Executes commands in Redis and never raises: on one server, a master, or a Cluster."""

    def execute(self, *commands: Command) -> list[Any] | None:
        """Return the reply to each command; None while the server of their keys is unavailable.

        All keys have the same tag, so that one round trip is enough.
        """
        ...

    def execute_each(self, commands: Sequence[Command]) -> list[Command]:
        """Execute commands whose keys may have any tags, and return those that were not executed.

        A server executes all of its commands in one round trip.
        """
        ...

    def is_unavailable(self, tag: str) -> bool:
        """Return whether the last call of the server of the keys with this tag failed."""
        ...

    def reconnected_within(self, seconds: float, tag: str) -> bool:
        """Return whether the server of the keys with this tag replied again in the last `seconds`.

        It was unavailable before, or another server had these keys.
        """
        ...

    def close(self) -> None:
        """Close the idle connections; the next call opens one again."""
        ...


class Script:
    """A Lua script, which Redis executes atomically."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _scripts[self._sha] = self

    def on(self, *keys: bytes | str, arguments: Sequence[Word] = ()) -> Command:
        """Return the command that executes the script with these keys and arguments."""
        return command("EVALSHA", self._sha, len(keys), *keys, *arguments)


_scripts: dict[Word, Script] = {}


def script_of(sha: Word) -> Script:
    """Return the script with this hash."""
    return _scripts[sha]


def _encoded(words: tuple[Word, ...]) -> tuple[bytes, ...]:
    """Return a command in the protocol of Redis, in half of the time that redis-py needs."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        if isinstance(word, ServerId):
            pieces[-1] += b"$%d\r\n" % SERVER_ID_CHARACTERS
            pieces.append(b"\r\n")
        else:
            raw = word if isinstance(word, bytes) else str(word).encode()
            pieces[-1] += b"$%d\r\n%b\r\n" % (len(raw), raw)
    return tuple(pieces)
