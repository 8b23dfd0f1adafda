"""The log formatter: every log record becomes one well-formed line without secrets."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from userapi.infrastructure.log_handlers import MOVED_FILE_SECONDS
from userapi.infrastructure.logging import (
    access_log,
    configure_logging,
    log_request,
    path_in_log,
)
from userapi.settings import Settings, SettingsError

log = structlog.get_logger("tests")
library = logging.getLogger("some.library")

HOSTILE = {
    "new lines": "a\nb\r\nc\x0bd\x0ce",
    "a forged line": '"}\n{"level":"error","message":"forged"}',
    "colours": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;owned\x07",
    "one byte controls": "\x9b31m\x85",
    "a null": "a\0b",
    "line separators": "a\u2028b\u2029c",
    "writing backwards": "\u202egnp.exe",
    "half a character": "a\ud800b",
    "percent signs": "100%s %d %(x)s {0}",
    "a lot": "x" * 10_000_000,
}


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Return what sets up the log with these variables, does something, and gives the lines."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    path = tmp_path / "logs" / "service.log"

    def lines(do: Callable[[], object], **environment: str) -> list[str]:
        variables = {"ENVIRONMENT": "testing", "LOG_FILE": str(path), **environment}
        configure_logging(Settings.from_env(variables, instance_dir=tmp_path))
        do()
        for handler in root.handlers:
            handler.close()
        text = path.read_text("utf-8")
        assert text.endswith("\n")
        return text.removesuffix("\n").split("\n")

    yield lines
    structlog.contextvars.clear_contextvars()
    root.handlers = handlers
    root.setLevel(level)


def parsed(lines: list[str]) -> dict[str, Any]:
    (line,) = lines
    event: dict[str, Any] = json.loads(line)
    return event


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_hostile_text_makes_one_line(
    lines: Callable[..., list[str]], name: str, log_format: str
) -> None:
    text = HOSTILE[name]

    written = lines(
        lambda: log.info("happened", path=text, nested={"a": [text]}), LOG_FORMAT=log_format
    )

    (line,) = written
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert log_format == "console" or json.loads(line)["message"] == "happened"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_hostile_text_of_a_library_makes_one_line(
    lines: Callable[..., list[str]], name: str, log_format: str
) -> None:
    written = lines(
        lambda: library.warning("Invalid request: %s", HOSTILE[name]), LOG_FORMAT=log_format
    )

    (line,) = written
    assert line.isprintable()
    assert "Invalid request" in line


def test_an_endless_text_is_cut(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(lambda: log.info("happened", path="x" * 10_000_000, status=200))

    assert len(line) < 10_000
    assert json.loads(line)["status"] == 200


def test_what_json_cannot_hold_is_written_as_text(lines: Callable[..., list[str]]) -> None:
    event = parsed(
        lines(lambda: log.info("happened", count=2**70, small=7, path=Path("/a"), names={1: "a"}))
    )

    assert event["count"] == str(2**70)
    assert event["small"] == 7
    assert event["path"] == "/a"
    assert event["names"] == "{1: 'a'}"


def test_a_line_begins_with_what_every_line_has(lines: Callable[..., list[str]]) -> None:
    structlog.contextvars.bind_contextvars(correlation_id="c-1")

    event = parsed(lines(lambda: log.warning("session.revoked", user_id="u-1")))

    assert list(event) == [
        "timestamp",
        "level",
        "logger",
        "message",
        "correlation_id",
        "user_id",
    ]
    assert event["timestamp"].endswith("Z")
    assert (event["level"], event["logger"]) == ("warning", "tests")
    assert (event["message"], event["correlation_id"]) == ("session.revoked", "c-1")


def test_libraries_and_gunicorn_write_the_same_lines(lines: Callable[..., list[str]]) -> None:
    def write() -> None:
        library.warning("%d of %s", 3, "four")
        logging.getLogger("gunicorn.error").error("Worker (pid:%s) was sent SIGKILL!", 7)

    events = [json.loads(line) for line in lines(write)]

    assert [event["message"] for event in events] == [
        "3 of four",
        "Worker (pid:7) was sent SIGKILL!",
    ]
    assert {event["correlation_id"] for event in events} == {None}


def test_a_librarys_line_whose_arguments_do_not_fit_is_not_lost(
    lines: Callable[..., list[str]],
) -> None:
    event = parsed(lines(lambda: library.error("%d things", "many")))

    assert event["message"] == "%d things ('many',)"


def test_a_line_that_cannot_be_rendered_does_not_fail_its_caller(
    lines: Callable[..., list[str]],
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def write() -> None:
        library.error("it is %s", Broken())
        library.error("still here")

    assert parsed(lines(write))["message"] == "still here"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(
    lines: Callable[..., list[str]], log_format: str
) -> None:
    def crash() -> None:
        password = "kingfisher" + "-79"
        try:
            raise ValueError("\x1b[31mbad\nthing")
        except ValueError:
            log.exception("request.crashed", length=len(password))

    text = "\n".join(lines(crash, LOG_FORMAT=log_format))

    assert "Traceback" in text
    assert "ValueError" in text
    assert "kingfisher-79" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("name", ["password", "refresh_token", "authorization", "cookie", "secret"])
def test_what_is_named_like_a_secret_is_masked(lines: Callable[..., list[str]], name: str) -> None:
    event = parsed(lines(lambda: log.info("happened", **{name: "kingfisher-79"})))

    assert event[name] == "***"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/v1/api-keys/uaks_031SDlhm3c" + "X" * 61, "/api/v1/api-keys/uaks_031…"),
        ("/api/v1/users/" + "x" * 64 + "/roles", "/api/v1/users/" + "x" * 64 + "/roles"),
        ("/" + "x" * 65 + "/" + "y" * 900, "/xxxxxxxx…/yyyyyyyy…"),
        (None, None),
    ],
)
def test_credentials_in_a_path_are_cut_short(path: str | None, shown: str | None) -> None:
    """A key in the place of its id was in the log, because the path is."""
    assert path_in_log(path) == shown


def test_a_moved_file_is_created_again(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    path = tmp_path / "logs" / "service.log"

    def write() -> None:
        log.info("first")
        os.rename(path, path.with_suffix(".1"))
        time.sleep(MOVED_FILE_SECONDS)
        log.info("second")

    assert parsed(lines(write))["message"] == "second"
    assert json.loads(path.with_suffix(".1").read_text())["message"] == "first"


def test_a_file_that_cannot_be_written_is_a_bad_setting(
    lines: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "in-the-way").write_text("")

    with pytest.raises(SettingsError) as caught:
        lines(lambda: None, LOG_FILE=str(tmp_path / "in-the-way" / "service.log"))

    assert caught.value.problems == ["LOG_FILE: must be the path of a writable file"]


def test_less_than_the_level_is_not_written(lines: Callable[..., list[str]]) -> None:
    def write() -> None:
        log.info("quiet")
        library.info("quiet")
        log.error("loud")

    assert parsed(lines(write, LOG_LEVEL="ERROR"))["message"] == "loud"


REQUEST: dict[str, Any] = {
    "correlation_id": "c-1",
    "method": "GET",
    "path": "/é\u2028\x9b",
    "status": 200,
}


def test_the_line_about_a_request_is_like_all_others(lines: Callable[..., list[str]]) -> None:
    """It is written without structlog and without a record of the standard library."""

    def write() -> None:
        log_request(**REQUEST, traceparent="00-a-b-01", user_id=None)
        access_log.info("request", **REQUEST, user_id=None, traceparent="00-a-b-01")

    directly, through_structlog = (json.loads(line) for line in lines(write))

    assert list(directly) == list(through_structlog)
    assert directly.pop("timestamp") <= through_structlog.pop("timestamp")
    assert directly == through_structlog


def test_the_line_about_a_request_has_no_empty_trace(lines: Callable[..., list[str]]) -> None:
    event = parsed(lines(lambda: log_request(**REQUEST, traceparent=None)))

    assert "traceparent" not in event


def test_the_line_about_a_request_is_readable_for_people(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(lambda: log_request(**REQUEST), LOG_FORMAT="console")

    assert line.isprintable()
    assert "correlation_id=c-1" in line


def test_lines_about_requests_have_the_level_info(lines: Callable[..., list[str]]) -> None:
    def write() -> None:
        log_request(**REQUEST)
        log.warning("loud")

    assert parsed(lines(write, LOG_LEVEL="WARNING"))["message"] == "loud"


def test_a_file_that_could_not_be_reopened_is_opened_later(
    lines: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "service.log"

    def write() -> None:
        os.rename(path, path.with_suffix(".1"))
        path.mkdir()
        time.sleep(MOVED_FILE_SECONDS)
        log_request(**REQUEST)
        path.rmdir()
        log_request(**REQUEST)

    assert parsed(lines(write))["message"] == "request"
