"""What a verification of the audit trail reports."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from userapi.audit.chain import ChainStart


class FindingKind(StrEnum):
    """What can be wrong with the trail."""

    ANCHOR_MISMATCH = "anchor_mismatch"
    CHAIN_START_ALTERED = "chain_start_altered"
    HEAD_ALTERED = "head_altered"
    HEAD_REMOVED = "head_removed"
    KEY_MISSING = "key_missing"
    ROW_ALTERED = "row_altered"
    ROW_REMOVED = "row_removed"
    ROW_UNACCOUNTED = "row_unaccounted"
    SEAL_ALTERED = "seal_altered"
    SEAL_REMOVED = "seal_removed"
    SEAL_UNKNOWN = "seal_unknown"


EXPLANATIONS = {
    FindingKind.ANCHOR_MISMATCH: "the chain is not the one that the anchor was taken from",
    FindingKind.CHAIN_START_ALTERED: "the record of a new chain was altered or forged",
    FindingKind.HEAD_ALTERED: "the head of the chain was altered",
    FindingKind.HEAD_REMOVED: "the head of the chain was removed",
    FindingKind.KEY_MISSING: "sealed with a key that is not here",
    FindingKind.ROW_ALTERED: "the row was altered after it was sealed",
    FindingKind.ROW_REMOVED: "the row was removed, and not by pruning",
    FindingKind.ROW_UNACCOUNTED: "the row is in no seal and does not wait for one",
    FindingKind.SEAL_ALTERED: "the seal was altered, forged or moved",
    FindingKind.SEAL_REMOVED: "the seal was removed",
    FindingKind.SEAL_UNKNOWN: "the seal is not part of the chain that the head describes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where."""

    kind: FindingKind
    seal: int | None = None
    row_id: UUID | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        places = []
        if self.row_id is not None:
            places.append(f"row {self.row_id}")
        if self.seal is not None:
            places.append(f"seal {self.seal}")
        where = ", ".join(places) or "chain"
        which = f" (key {self.key_id})" if self.key_id else ""
        return f"{where}: {EXPLANATIONS[self.kind]}{which}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The number and MAC of a seal, stored outside of the database."""

    seal: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The extent of a verification. `head` is the anchor to store for the next one.

    `starts` are the places where `flask audit anchor` began a new chain. `unchecked` counts seals
    whose key is not configured.
    """

    seals: int
    unchecked: int
    starts: tuple[ChainStart, ...]
    rows: int
    waiting: int
    pruned: int
    findings: int
    head: Anchor


Report = Callable[[Finding], object]


class Findings:
    """Reports and counts findings. A missing key and a fault of the head are reported once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._reported_keys: set[str] = set()
        self._reported_head: FindingKind | None = None
        self.count = 0

    def add(
        self,
        kind: FindingKind,
        *,
        seal: int | None = None,
        row: UUID | None = None,
        key_id: str | None = None,
    ) -> None:
        """Report a finding."""
        self.count += 1
        self._report(Finding(kind=kind, seal=seal, row_id=row, key_id=key_id))

    def add_missing_key(self, key_id: str, *, seal: int) -> None:
        """Report a missing key once, however many seals were made with it."""
        if key_id not in self._reported_keys:
            self._reported_keys.add(key_id)
            self.add(FindingKind.KEY_MISSING, seal=seal, key_id=key_id)

    def add_head(self, kind: FindingKind) -> None:
        """Report a fault of the head once, although it is read with each batch of seals."""
        if self._reported_head is not kind:
            self._reported_head = kind
            self.add(kind)
