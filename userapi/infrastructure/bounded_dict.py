"""A cache for values that are cheap to compute again."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dictionary that is emptied when a further key would exceed its size.

    Threads can share it without a lock, and reading costs no more than with any dictionary: an LRU
    cache takes several microseconds to reorder its keys.
    """

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self._max_keys = max_keys

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value. A new key empties a full dictionary first."""
        if len(self) >= self._max_keys and key not in self:
            self.clear()
        super().__setitem__(key, value)
