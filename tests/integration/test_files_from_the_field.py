"""Realistic files of users, imported through the API, the console and the command line."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts import exports
from userapi.accounts.imports.columns import COLUMNS
from userapi.wiring.services import Services

INPUTS = Path(__file__).parents[1] / "inputs"
IMPORT = "/api/v1/users/import"
EXPORT_ONLY = [name for name in exports.COLUMNS if name not in COLUMNS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an import: the created users, or the message."""

    users: Mapping[str, tuple[str, str | None, str | None]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    said: str = ""


# Each user as e-mail address, first and last name. An earlier release has written the files.
FROM_AN_EXPORT = Outcome(
    users={
        "rt.one": ("rt.one@example.org", "Ann;=1+1", "-"),
        "rt.two": ("rt.two@example.org", '＝HYPERLINK("http://x.example")', "@home"),
        "rt.three": ("rt.three@example.org", "\xa0=1", "x"),
        "rt.four": ("rt.four@example.org", 'a,"b"', "O'Neil"),
        "rt.five": ("+tag@example.org", None, None),
    },
    ignored=tuple(name for name in EXPORT_ONLY if name != "mfa_enabled"),
)
OUTCOMES: dict[str, Outcome] = {
    "02_semicolon.csv": Outcome(users={"semi.one": ("semi.one@example.org", "Zoë", None)}),
    "03_utf16.csv": Outcome(users={"u16.one": ("u16.one@example.org", "Zoë", None)}),
    "04_trailing_columns.csv": Outcome(users={"trail.one": ("trail.one@example.org", "Ann", None)}),
    "08_header_case.csv": Outcome(users={"hc.one": ("hc.one@example.org", "Ann", None)}),
    "30_exported.csv": FROM_AN_EXPORT,
    "31_exported.ndjson": FROM_AN_EXPORT,
    "50_array.json": Outcome(said="A JSON array is not NDJSON: write each user as a JSON object"),
    "61_reimport.csv": Outcome(users={"rtx.five": ("+tag@example.org", "=x", "-")}),
}
MADE = {
    "tabs.tsv": (
        b"username\temail\tfirst_name\ntab.one\ttab.one@example.org\tAnn, Bob\n",
        Outcome(users={"tab.one": ("tab.one@example.org", "Ann, Bob", None)}),
    ),
    "stated.csv": (
        "\ufeffsep=;\r\nE-Mail;USERNAME;Last Name\r\n;;\r\nx@example.org;x.one;Bo\r\n\r\n".encode(),
        Outcome(users={"x.one": ("x@example.org", None, "Bo")}),
    ),
    "unnamed.csv": (
        b"username,,email,colour\nada,x,ada@example.org,red\n",
        Outcome(said="Column 2 has no name."),
    ),
    "unknown.csv": (
        b"username,email,colour\nada,ada@example.org,red\n",
        Outcome(said="Column 3, 'colour', is unknown."),
    ),
    "twice.csv": (
        b"username,email,E-Mail\nada,ada@example.org,b@example.org\n",
        Outcome(said="Column 3 repeats column 2, email."),
    ),
    "workbook.csv": (b"PK\x03\x04\x14\x00\x06\x00", Outcome(said="save it as CSV")),
    "old-workbook.csv": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Outcome(said="save it as CSV")),
    "packed.csv": (b"\x1f\x8b\x08\x00", Outcome(said="Decompress it first")),
    "no-mark.csv": ("username,email\n".encode("utf-16-le"), Outcome(said="UTF-16 without a byte")),
    "latin.csv": (
        "username,email,first_name\nada,ada@example.org,Zoë\n".encode("latin-1"),
        Outcome(said="The file is not UTF-8."),
    ),
    "lines.json": (
        b'[\n{"username": "ada", "email": "ada@example.org"}\n]\n',
        Outcome(said="A JSON array is not NDJSON: write each user as a JSON object"),
    ),
}
CASES = {name: ((INPUTS / name).read_bytes(), outcome) for name, outcome in OUTCOMES.items()} | MADE


@dataclass(frozen=True, slots=True)
class Said:
    """The text that an import shows, and the ignored columns."""

    text: str
    ignored: tuple[str, ...] = ()


Import = Callable[[str, bytes], Said]


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.fixture
def clerk(app: Flask, make_user: MakeUser) -> PageReader:
    """Return the browser of another administrator."""
    reader = PageReader(app)
    assert reader.sign_in(make_user("clerk", roles=["admin"])).status_code == 303
    return reader


@pytest.fixture(params=["api", "console", "cli"])
def bring(
    request: pytest.FixtureRequest, app: Flask, admin: SignedInClient, tmp_path: Path
) -> Import:
    """Return a function that imports a file in one of the three ways."""

    def by_api(name: str, content: bytes) -> Said:
        is_csv = name.endswith((".csv", ".tsv"))
        answer = admin.post(
            IMPORT,
            data=content,
            headers={"Content-Type": "text/csv" if is_csv else "application/x-ndjson"},
        )
        body = answer.get_json()
        return Said(json.dumps(body, ensure_ascii=False), tuple(body.get("ignored_columns", ())))

    def by_console(name: str, content: bytes) -> Said:
        """Have the file checked, which changes nothing, then import its rows if it can be read."""
        reader: PageReader = request.getfixturevalue("clerk")
        reader.get("/users/import")
        checked = reader.post("/users/import", file=(io.BytesIO(content), name))
        if checked.status_code != 303:
            return Said(words(checked))
        _run_worker(app)
        assert there(admin) == {}
        reader.follow(checked)
        imported = reader.post(f"{checked.location.removeprefix('/console')}/import")
        _run_worker(app)
        page = words(reader.follow(imported))
        _, _, rest = page.partition("Ignored columns: ")
        return Said(page, tuple(rest.partition(".")[0].split(", ")) if rest else ())

    def by_command(name: str, content: bytes) -> Said:
        file = tmp_path / name
        file.write_bytes(content)
        result = app.test_cli_runner().invoke(args=["users", "import", str(file)])
        _, _, rest = result.output.partition("Ignored columns: ")
        return Said(result.output, tuple(rest.partition(".")[0].split(", ")) if rest else ())

    ways: dict[str, Import] = {"api": by_api, "console": by_console, "cli": by_command}
    return ways[request.param]


def _run_worker(app: Flask) -> None:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        while services.import_runner.advance():
            pass


def there(admin: SignedInClient) -> dict[str, Any]:
    items = admin.get("/api/v1/users/", query={"page_size": "50"}).get_json()["items"]
    return {
        user["username"]: (user["email"], user["first_name"], user["last_name"])
        for user in items
        if user["username"] not in {"boss", "clerk"}
    }


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_file_has_the_same_outcome_through_api_console_and_command(
    admin: SignedInClient, bring: Import, name: str
) -> None:
    content, outcome = CASES[name]

    said = bring(name, content)

    assert there(admin) == outcome.users
    assert outcome.said in said.text
    assert sorted(said.ignored) == sorted(outcome.ignored)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (10_000, "The header has 10001 columns. At most 200 are accepted."),
        (1_000_000, "The header is longer than 65536 characters."),
    ],
)
def test_a_header_of_very_many_columns_is_rejected_with_one_error(
    admin: SignedInClient, columns: int, message: str
) -> None:
    """Each column was an error of its own, and each was compared with all before it."""
    header = b"email," * columns + b"username\n"

    answer = admin.post(IMPORT, data=header, headers={"Content-Type": "text/csv"})

    (error,) = answer.get_json()["errors"]
    assert error == {"field": "header", "message": message, "code": "too_long"}


def test_a_row_of_thousands_of_unknown_fields_has_few_errors(admin: SignedInClient) -> None:
    row = {"username": "ada", "email": "ada@example.org"} | {f"x{n}": 1 for n in range(5000)}

    answer = admin.post(
        IMPORT, data=json.dumps(row), headers={"Content-Type": "application/x-ndjson"}
    )

    assert len(answer.get_json()["results"][0]["errors"]) == 50


@pytest.mark.parametrize("charset", ["utf-16le", "UTF-16BE"])
def test_utf_16_with_a_stated_byte_order_needs_no_mark(admin: SignedInClient, charset: str) -> None:
    content = "username,email\nada,ada@example.org\n".encode(charset)

    answer = admin.post(
        IMPORT, data=content, headers={"Content-Type": f"text/csv; charset={charset}"}
    )

    assert answer.get_json()["created"] == 1


@pytest.mark.parametrize("charset", ["windows-1252", "iso-8859-1", "ISO-8859-1"])
def test_a_stated_encoding_is_used(admin: SignedInClient, charset: str) -> None:
    content = "username,email,first_name\nada,ada@example.org,Zoë\n".encode("latin-1")

    answer = admin.post(
        IMPORT, data=content, headers={"Content-Type": f"text/csv; charset={charset}"}
    )

    assert answer.get_json()["created"] == 1
    assert there(admin) == {"ada": ("ada@example.org", "Zoë", None)}


def test_an_unknown_encoding_is_415(admin: SignedInClient) -> None:
    answer = admin.post(
        IMPORT, data=b"username,email\n", headers={"Content-Type": "text/csv; charset=koi8-r"}
    )

    assert answer.status_code == 415


def test_a_workbook_is_415_with_advice(admin: SignedInClient) -> None:
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    answer = admin.post(IMPORT, data=b"PK\x03\x04", headers={"Content-Type": kind})

    assert answer.status_code == 415
    assert "save the workbook as CSV" in answer.get_json()["detail"]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_an_export_can_be_imported_again(
    admin: SignedInClient, make_user: MakeUser, form: str
) -> None:
    given = {"first_name": "Ann;=1+1", "last_name": "'=x", "metadata": {"note": "a;=1"}}
    robin = make_user("robin", email="+tag@example.org", roles=["moderator"], **given)
    before = there(admin)
    exported = admin.get("/api/v1/users/export", query={"format": form, "search": "robin"})
    admin.delete(f"/api/v1/users/{robin.id}")
    assert there(admin) == {}

    answer = admin.post(
        IMPORT, data=exported.get_data(), headers={"Content-Type": exported.content_type}
    )

    body = answer.get_json()
    assert (body["created"], body["failed"]) == (1, 0)
    assert set(body["ignored_columns"]) == set(EXPORT_ONLY)
    assert there(admin) == before


def test_a_download_for_a_spreadsheet_begins_with_a_byte_order_mark(
    admin: SignedInClient, clerk: PageReader
) -> None:
    def begin(path: str) -> bytes:
        return admin.get(path).get_data()[:3]

    for base in ("/api/v1/users/export", "/api/v1/audit-logs/export"):
        assert begin(f"{base}?format=csv&bom=true") == b"\xef\xbb\xbf"
        assert begin(f"{base}?format=csv")[:1] != b"\xef"
        assert begin(f"{base}?bom=true")[:1] == b"{"
    for page in ("/users/export?format=csv", "/audit/export?format=csv"):
        assert clerk.get(page).data[:3] == b"\xef\xbb\xbf"
