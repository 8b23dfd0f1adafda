"""Exports: lines of CSV and NDJSON."""

import csv
import io
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userapi.cli.statistics import bar
from userapi.export import FORMULA_STARTS, ExportFormat, csv_line, export_pieces

COLUMNS = ["id", "at", "note"]
ROW = {"id": UUID(int=1), "at": datetime(2026, 1, 2, 3, tzinfo=UTC), "note": {"a": [1]}}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_a_line_of_csv_reads_back_and_holds_no_formula(values: list[str]) -> None:
    (cells,) = csv.reader(io.StringIO(csv_line(values), newline=""))

    assert not any(cell.startswith(FORMULA_STARTS) for cell in cells)
    assert [c[1:] if v.startswith(FORMULA_STARTS) else c for c, v in zip(cells, values)] == values


def test_an_export_is_made_chunk_by_chunk() -> None:
    pieces = export_pieces([[ROW, ROW], [ROW]], columns=COLUMNS, form=ExportFormat.NDJSON)

    first, second = pieces

    assert first.count(b"\n") == 2
    assert json.loads(second) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-01-02T03:00:00.000000Z",
        "note": {"a": [1]},
    }


def test_an_empty_csv_still_has_its_head() -> None:
    assert list(export_pieces([], columns=COLUMNS, form=ExportFormat.CSV)) == [b"id,at,note\r\n"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0, ""), (1, "▏"), (50, "██████"), (99, "███████████▉"), (100, "█" * 12)]
)
def test_a_bar_is_as_long_as_its_value(value: int, shown: str) -> None:
    assert bar(value, 100) == shown
