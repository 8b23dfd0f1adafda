"""Exports: lines of CSV and NDJSON."""

import csv
import io
import json
import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userapi.cli.statistics import bar
from userapi.infrastructure.export import (
    FORMULA_STARTS,
    ExportFormat,
    csv_line,
    export_pieces,
    with_byte_order_mark,
    with_guard,
    without_guard,
)

COLUMNS = ["id", "at", "note"]
ROW = {"id": UUID(int=1), "at": datetime(2026, 1, 2, 3, tzinfo=UTC), "note": {"a": [1]}}


HOSTILE = st.text(st.sampled_from("=+-@＝﹣;|,\t\r\n'\" a\xa0"))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | HOSTILE, min_size=1))
def test_a_line_of_csv_reads_back_unchanged(values: list[str]) -> None:
    (cells,) = csv.reader(io.StringIO(csv_line(values), newline=""))

    assert [without_guard(cell) for cell in cells] == values


@given(st.lists(HOSTILE, min_size=1), st.sampled_from(",;\t|"))
def test_no_cell_is_a_formula_whatever_separates_the_cells(
    values: list[str], delimiter: str
) -> None:
    """A spreadsheet of another country splits the lines at semicolons or tabs."""
    file = csv_line(["1", *values])

    for cells in csv.reader(io.StringIO(file, newline=""), delimiter=delimiter):
        assert not [
            cell for cell in cells if cell.strip(' \xa0"').startswith(tuple(FORMULA_STARTS))
        ]


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("=1+1", "'=1+1"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "'\t'=1"),
        ("\xa0=1", "'\xa0=1"),
        ("Ann;=1+1", "'Ann;'=1+1"),
        ("'=1", "''=1"),
        ("O'Neil", "O'Neil"),
        ("'tis", "'tis"),
        ("Ann; Bob - both", "Ann; Bob - both"),
    ],
)
def test_the_guard_is_an_apostrophe_where_a_cell_could_begin(text: str, guarded: str) -> None:
    assert with_guard(text) == guarded
    assert without_guard(guarded) == text


def test_a_guard_of_the_whole_cell_alone_is_removed_too() -> None:
    assert without_guard("'Ann;=1+1") == "Ann;=1+1"


def test_json_in_a_cell_is_guarded_and_stays_json() -> None:
    value = {"note": "Ann;=1+1", "also": ["|＝x", -2]}

    (cell,) = next(csv.reader([csv_line([value])]))

    assert ";=" not in cell and "|＝" not in cell
    assert json.loads(cell) == value


@pytest.mark.parametrize("filler", [";", "\t", " ", "'", '"', "; ", "'\""])
def test_the_time_of_the_guard_is_linear(filler: str) -> None:
    def seconds(length: int) -> float:
        text = "a;" + filler * (length // len(filler))
        begun = time.process_time()
        for _ in range(5):
            without_guard(with_guard(text))
        return time.process_time() - begun

    # 16 times the text is quadratic where it takes 256 times as long.
    assert seconds(160_000) < 100 * max(seconds(10_000), 0.001)


def test_an_export_is_made_chunk_by_chunk() -> None:
    pieces = export_pieces([[ROW, ROW], [ROW]], columns=COLUMNS, form=ExportFormat.NDJSON)

    first, second = pieces

    assert first.count(b"\n") == 2
    assert json.loads(second) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-01-02T03:00:00.000000Z",
        "note": {"a": [1]},
    }


@pytest.mark.parametrize("form", ExportFormat)
def test_only_csv_begins_with_a_byte_order_mark(form: ExportFormat) -> None:
    pieces = b"".join(with_byte_order_mark([b"a", b"b"], form))

    assert pieces == (b"\xef\xbb\xbfab" if form is ExportFormat.CSV else b"ab")


def test_an_empty_csv_still_has_its_head() -> None:
    assert list(export_pieces([], columns=COLUMNS, form=ExportFormat.CSV)) == [b"id,at,note\r\n"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0, ""), (1, "▏"), (50, "██████"), (99, "███████████▉"), (100, "█" * 12)]
)
def test_a_bar_is_as_long_as_its_value(value: int, shown: str) -> None:
    assert bar(value, 100) == shown
