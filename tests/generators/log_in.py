"""The first calls of a developer: log in, read a list, handle an error."""

import sys

from generated_client.api.auth import login
from generated_client.api.users import list_users
from generated_client.client import AuthenticatedClient, Client
from generated_client.models import Login, LoginResult, Problem, UserPage


def main(base_url: str, username: str, password: str) -> None:
    client = Client(base_url=base_url)
    pair = login.sync(client=client, body=Login(username=username, password=password))
    assert isinstance(pair, LoginResult)
    signed_in = AuthenticatedClient(base_url=base_url, token=pair.access_token)
    users = list_users.sync(client=signed_in, page_size=1)
    assert isinstance(users, UserPage)
    refused = login.sync(client=client, body=Login(username=username, password="wrong"))
    assert isinstance(refused, Problem)
    print(pair.token_type.value, pair.user.username, users.items[0].username, refused.code)


main(*sys.argv[1:])
