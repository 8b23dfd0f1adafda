# Generated from asynchronous/exchange.py by scripts/generate_synchronous.py; do not edit.
"""Sends requests, and retries them if that is safe and useful."""

from collections.abc import Callable

import httpx2

from userapi_client.errors import Unavailable
from userapi_client.replies import CORRELATION_ID, OUTCOME_WAS_OPEN
from userapi_client.requests import Call
from userapi_client.retries import Retries
from userapi_client.synchronous.runtime import HttpClient, sleep


class Exchange:
    """Sends calls to one service, with the headers that it receives."""

    def __init__(self, *, retries: int, budget: float, http: Callable[[], HttpClient]) -> None:
        self._retries = retries
        self._budget = budget
        self._http = http

    def send(self, call: Call, *, authorization: str | None = None) -> httpx2.Response:
        """Return the response, with any status. Raises Unavailable if there is none.

        If the response to a DELETE was lost and its retry returns 404, the object is deleted: the
        response is then 204.
        """
        retries = Retries(left=self._retries, budget=self._budget, is_repeatable=call.is_repeatable)
        while True:
            request = self._request(call, authorization)
            try:
                response = self._http().send(request)
            except httpx2.TransportError as exc:
                wait = retries.wait_after_error(exc)
                if wait is None:
                    raise Unavailable() from exc
            except httpx2.DecodingError as exc:
                raise Unavailable(detail="The response cannot be read.") from exc
            else:
                was_open = retries.outcome_is_open
                wait = retries.wait_after_reply(response)
                if wait is None:
                    return _final(call, response, was_open=was_open)
            sleep(wait)

    def _request(self, call: Call, authorization: str | None) -> httpx2.Request:
        headers = {"Accept": "application/json, */*;q=0.5", **call.headers}
        if authorization is not None:
            headers["Authorization"] = authorization
        http = self._http()
        return http.build_request(
            call.method,
            call.path,
            params=dict(call.params) or None,
            headers=headers,
            content=call.content,
            data=None if call.data is None else dict(call.data),
            timeout=http.timeout if call.timeout is None else call.timeout,
        )


def _final(call: Call, response: httpx2.Response, *, was_open: bool) -> httpx2.Response:
    if CORRELATION_ID not in response.headers and not 300 <= response.status_code < 400:
        raise Unavailable(detail="The response does not come from the User Management Service.")
    response.extensions[OUTCOME_WAS_OPEN] = was_open
    if call.method == "DELETE" and response.status_code == 404 and was_open:
        return httpx2.Response(204, headers=response.headers, request=response.request)
    return response
