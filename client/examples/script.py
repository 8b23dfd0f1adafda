"""Sets a team for every active user who has none, once, whatever the network does.

USERAPI_URL=http://127.0.0.1:8000 CLIENT_ID=… CLIENT_SECRET=… python script.py
"""

import os

from userapi_client import Client, ClientCredentials

auth = ClientCredentials(
    os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"], scope="users:read users:update"
)
with Client(os.environ["USERAPI_URL"], auth) as api:
    for user in api.users.iter(status="active", sort="username"):
        if not user.metadata.get("team"):
            api.users.change(user.id, lambda now: {"metadata": {**now.metadata, "team": "vision"}})
