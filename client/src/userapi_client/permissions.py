"""Permissions and what they imply.

A permission is `resource:action`; `media:*` includes every permission of `media`, `*` includes all.
"""

from collections.abc import Callable, Collection, Iterable, Iterator


class Permissions(Collection[str]):
    """An immutable set of permissions whose `in` supports wildcards."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Raises TypeError for a single text, which would be a set of letters."""
        if isinstance(names, str):
            raise TypeError("Permissions requires a list of permissions, not a single string.")
        self._names = frozenset(str(name) for name in names)

    @property
    def names(self) -> frozenset[str]:
        """The permissions as written, including wildcards."""
        return self._names

    def __contains__(self, permission: object) -> bool:
        """Return whether the permission is held, by name or by a wildcard."""
        names = self.names
        if not isinstance(permission, str):
            return False
        if permission in names or "*" in names:
            return True
        resource, colon, _ = permission.partition(":")
        return colon == ":" and f"{resource}:*" in names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Permissions) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"Permissions({sorted(self.names)!r})"

    def __and__(self, other: "Permissions") -> "Permissions":
        """Return the names on each side that the other side includes."""
        return Permissions(
            {name for name in self.names if name in other}
            | {name for name in other.names if name in self}
        )

    def covers(self, others: Iterable[str]) -> bool:
        """Return whether all of `others` are held."""
        return all(name in self for name in others)


class DeferredPermissions(Permissions):
    """Permissions that are read from the service when they are first used.

    Every use can raise Unavailable or TokenRefused. A failure is not cached: the next use queries
    again.
    """

    __slots__ = ("_load", "_loaded")

    def __init__(self, load: Callable[[], Permissions]) -> None:
        super().__init__()
        self._load = load
        self._loaded = False

    @property
    def names(self) -> frozenset[str]:
        """The permissions as returned by the service."""
        if not self._loaded:
            self._names = self._load().names
            self._loaded = True
        return self._names

    def __repr__(self) -> str:
        return super().__repr__() if self._loaded else "Permissions(not read yet)"
