"""Every guarantee in docs/availability.md has a test."""

import re

import pytest

from tests.cluster.guarantees import DOCUMENT, Guarantee, guarantees
from tests.support.gunicorn import REPOSITORY


def test_every_row_of_the_document_is_read() -> None:
    lines = re.findall(r"^\| G\d+ .*$", DOCUMENT.read_text("utf-8"), re.MULTILINE)

    assert len(lines) == sum(map(len, guarantees().values())) > 0


def test_every_promise_names_a_test_that_checks_it() -> None:
    for guarantee, rows in guarantees().items():
        for row in rows:
            text = (REPOSITORY / row.path).read_text("utf-8")
            body = re.search(rf"^def {row.test}\(.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
            assert body is not None, row.test
            assert f'hold("{guarantee}"' in text, row.test
            assert row.measured <= row.bound, row


def test_a_measurement_over_the_bound_or_of_another_magnitude_is_refused() -> None:
    row = Guarantee(what="x", bound=10, measured=0.6, path="", test="")

    row.check(5.9)
    with pytest.raises(AssertionError, match="promised 10"):
        row.check(10.1)
    with pytest.raises(AssertionError, match="says 0.6"):
        row.check(6.1)
