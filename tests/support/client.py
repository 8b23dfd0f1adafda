"""A client that speaks JSON to the application, inside this process."""

from collections.abc import Mapping
from json import dumps as encoded
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse


class JsonClient:
    """Sends requests as one caller: without a token, or as a user. Keeps no cookies."""

    def __init__(
        self, app: Flask, *, token: str | None = None, ip_address: str = "127.0.0.1"
    ) -> None:
        self.app = app
        self.token = token
        self.ip_address = ip_address

    def as_user(self, token: str) -> "JsonClient":
        """Return a client that sends this access token."""
        return JsonClient(self.app, token=token, ip_address=self.ip_address)

    def from_address(self, ip_address: str) -> "JsonClient":
        """Return a client that calls from elsewhere."""
        return JsonClient(self.app, token=self.token, ip_address=ip_address)

    def get(self, path: str, **options: Any) -> TestResponse:
        """Send GET; see `request`."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        """Send POST; see `request`."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> TestResponse:
        """Send PUT; see `request`."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> TestResponse:
        """Send PATCH; see `request`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        """Send DELETE; see `request`."""
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TestResponse:
        """Send a request. Without `json` there is no body; further options are werkzeug's."""
        all_headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        all_headers.update(headers or {})
        if json is not None:
            # Not the application's own encoder: tests send what that one would refuse to write.
            options["data"] = encoded(json)
            options["content_type"] = "application/json"
        return self.app.test_client(use_cookies=False).open(
            path,
            method=method,
            headers=all_headers,
            query_string=query,
            environ_base={"REMOTE_ADDR": self.ip_address},
            **options,
        )
