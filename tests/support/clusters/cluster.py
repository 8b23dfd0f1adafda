"""What all clusters have in common."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


class Cluster(ABC):
    """Several servers that start and end together, with their data in one directory."""

    @abstractmethod
    def __init__(self, directory: Path) -> None: ...

    @abstractmethod
    def start(self) -> Self:
        """Start all servers and wait until they form a complete cluster."""

    @abstractmethod
    def stop(self) -> None:
        """End all servers, whatever state they are in."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
