"""The OpenAPI document, Swagger UI and ReDoc, with all their assets."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import flask_smorest
from flask import Blueprint as PlainBlueprint
from flask import Flask, Response, current_app, render_template, send_from_directory
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from userapi.health import VERSION
from userapi.settings import Settings

from . import openapi as openapi_document
from .access import public
from .operations import public_operation
from .problems import TOKEN_PATH, handle_http_exception
from .responses import OrjsonProvider
from .schemas.common import Problem
from .schemas.discovery import Index

VENDORED = Path(__file__).parent / "static"
# Swagger UI and ReDoc add inline styles. Scripts come from files only.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ABOUT = """Accounts, sign-in, roles, sessions and an audit log.


**To try it:** open [Swagger UI](/docs), select *Authorize* and sign in. [ReDoc](/redoc) shows the
same document for reading.

# Conventions

- **Errors** are `application/problem+json` (RFC 9457). Their `code` is stable: switch on it. A 422
  lists each field under `errors`.
- **Strict bodies:** an unknown field or a wrong JSON type returns 422. No value is converted or
  ignored.
- **Lists** accept `page` and `page_size`, or `cursor` with the `next_cursor` of the previous
  response. A cursor has the same cost at any position.
- **Retries of creates:** send an `Idempotency-Key`. A repeated request gets the first response.
- **Concurrent changes:** send the `ETag` as `If-Match`. If the resource has changed, the response
  is 412.
- **Limits:** 429 and 503 have `Retry-After` in seconds.
- **Tracing:** every response has `X-Correlation-ID`, as have logs, audit entries and events.
- **Times** are RFC 3339 in UTC; ids are UUIDs.
"""


class Api(flask_smorest.Api):
    """flask-smorest with the errors and the description of this service."""

    ERROR_SCHEMA = Problem

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._parts: list[Callable[[], None]] = []
        app.config.update(
            API_TITLE=settings.app_name,
            API_VERSION=VERSION,
            OPENAPI_VERSION="3.0.3",
            API_SPEC_OPTIONS={
                "info": {
                    "description": ABOUT,
                    "contact": _contact(settings.security_contact),
                },
                "components": {
                    "securitySchemes": {
                        "bearer": {
                            "type": "http",
                            "scheme": "bearer",
                            "bearerFormat": "JWT",
                            "description": (
                                "The `access_token` of a log-in, without the word Bearer. It is "
                                f"valid for {settings.jwt_access_token_expire_minutes} minutes, or "
                                "until its session ends. Or an API key."
                            ),
                        },
                        "client": {
                            "type": "http",
                            "scheme": "basic",
                            "description": (
                                "The id of a service account, and one of its API keys as the "
                                "password."
                            ),
                        },
                        "client_credentials": {
                            "type": "oauth2",
                            "description": "A client token of a service account.",
                            "flows": {
                                "clientCredentials": {
                                    "tokenUrl": TOKEN_PATH,
                                    "scopes": {},
                                }
                            },
                        },
                    }
                },
                "servers": [{"url": "/", "description": "The server of this document"}],
            },
        )
        super().__init__(app)

    def document_later(self, document_part: Callable[[], None]) -> None:
        """Keep a function that adds a part to the document, until the document is built."""
        self._parts.append(document_part)

    def build_document(self) -> dict[str, Any]:
        """Return the document of all parts. Call it once."""
        for document_part in self._parts:
            document_part()
        _document_plain_routes(self)
        document: dict[str, Any] = self.spec.to_dict()
        # The pagination of flask-smorest, which this service does not use.
        document["components"]["schemas"].pop("PaginationMetadata", None)
        return document

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Return a problem document."""
        return handle_http_exception(error)


class Document:
    """The OpenAPI document, built at the first request for it.

    Building takes 0.3 s, half of the time that a worker needs to start.
    """

    def __init__(self, app: Flask, api: Api) -> None:
        self._app = app
        self._api = api
        self._lock = Lock()
        self._text: str | None = None

    def text(self) -> str:
        """Return the document as JSON. It is the same for all callers."""
        with self._lock:
            if self._text is None:
                document = self._api.build_document()
                openapi_document.finish(document, self._app)
                self._text = OrjsonProvider(self._app).dumps(document)
            return self._text


def _contact(address: str) -> dict[str, str]:
    """Return the contact of the document for a contact of RFC 9116."""
    if address.startswith("mailto:"):
        return {"name": "Operator", "email": address.removeprefix("mailto:")}
    return {"name": "Operator", "url": address}


blp = PlainBlueprint("documentation", __name__, template_folder="templates", static_folder=None)


@blp.route("/openapi.json", methods=["GET"])
@public
def openapi() -> Response:
    """Return the OpenAPI document."""
    document: Document = current_app.extensions["userapi.openapi"]
    return Response(document.text(), mimetype="application/json")


@blp.route("/docs", methods=["GET"])
@public
def swagger_ui() -> Response:
    """Show the document in Swagger UI."""
    return _page("swagger.html")


@blp.route("/redoc", methods=["GET"])
@public
def redoc() -> Response:
    """Show the document in ReDoc."""
    return _page("redoc.html")


@blp.route("/docs/assets/<path:name>", methods=["GET"])
@public
def asset(name: str) -> Response:
    """Return a file of Swagger UI or ReDoc."""
    response = send_from_directory(VENDORED, name, max_age=86400)
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


def _page(template: str) -> Response:
    response = Response(render_template(template, title=current_app.config["API_TITLE"]))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def _document_plain_routes(api: Api) -> None:
    """Document the routes that are not on a blueprint of flask-smorest."""
    api.spec.components.schema("Index", schema=Index)
    plain_text = {"text/plain": {"schema": {"type": "string"}}}
    for path, summary, content in (
        ("/", "Get links to the endpoints and documents", {"application/json": {"schema": Index}}),
        ("/metrics", "Get the metrics in the format of Prometheus", plain_text),
    ):
        operation = public_operation(
            api.spec,
            summary=summary,
            accepts_token=path == "/metrics",
            responses={"200": {"description": "OK", "content": content}},
        )
        if path == "/metrics":
            operation["security"] = [{}, {"bearer": []}]
            operation["description"] = "Needs `METRICS_TOKEN` as the bearer token if it is set."
        api.spec.path(
            path, rule=Rule(path), operations={"get": {**operation, "tags": ["wellknown"]}}
        )


def init_app(app: Flask, api: Api, settings: Settings) -> None:
    """Serve the index, and the documents if the settings enable them."""
    links: dict[str, Any] = {
        "service": settings.app_name,
        "version": VERSION,
        "health": "/api/v1/health/",
        "metrics": "/metrics",
        "jwks": "/.well-known/jwks.json",
    }

    @app.route("/", methods=["GET"])
    @public
    def index() -> dict[str, Any]:
        """Return links to the endpoints and documents."""
        return links

    if settings.console_enabled:
        links["console"] = "/console/"
    if settings.docs_enabled:
        app.register_blueprint(blp)
        links |= {"docs": "/docs", "redoc": "/redoc", "openapi": "/openapi.json"}
        app.extensions["userapi.openapi"] = Document(app, api)
