"""Users as tests know them: what they log in with, and the client they then have."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask

from tests.support.client import JsonClient

PASSWORD = "heron-marble-94-lantern"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUser:
    """A user that a test has created, with the credentials."""

    id: str
    username: str
    email: str
    password: str


class SignedInClient(JsonClient):
    """A client of a user who has logged in."""

    def __init__(self, app: Flask, answer: dict[str, str]) -> None:
        super().__init__(app, token=answer["access_token"])
        self.access_token = answer["access_token"]
        self.refresh_token = answer["refresh_token"]
        self.session_id = answer["session_id"]


MakeUser = Callable[..., MadeUser]
LogIn = Callable[..., SignedInClient]
