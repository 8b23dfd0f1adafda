"""Fixtures of tests of pages."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.pages import PageReader
from tests.support.users import MadeUser, MakeUser

SignIn = Callable[..., PageReader]


@pytest.fixture
def reader(app: Flask) -> PageReader:
    """Return a browser without a session."""
    return PageReader(app)


@pytest.fixture
def sign_in(app: Flask, make_user: MakeUser) -> SignIn:
    """Return a function that signs in a user, or a new user with the given roles."""

    def sign_in(user: MadeUser | None = None, *, roles: tuple[str, ...] = ()) -> PageReader:
        reader = PageReader(app)
        answer = reader.sign_in(user or make_user("reader", roles=roles))
        assert answer.status_code == 303, answer.text
        return reader

    return sign_in
