"""The same table on every framework: what callers get, whatever the framework would say itself."""

import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import django
import flask
import httpx2
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path
from either import Loop
from fastapi import Depends, FastAPI
from hostile import AUDIENCE, ISSUER, SESSION, USER, VERIFY, HostileService, Reply, problem
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import userapi_client.django
from userapi_client import AsyncVerifier, PermissionDenied, Principal, Verifier
from userapi_client.fastapi import Auth
from userapi_client.flask import UserApi, current_principal
from userapi_client.starlette import UserApiBackend, on_error, required

KEY = "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2ZGeM9"
FRAMEWORKS = ("flask", "fastapi", "starlette", "django", "django_async", "drf", "drf_plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    document: Any


Call = Callable[..., Answer]


class Application:
    """How requests reach an application, and the verifier to close afterwards."""

    def __init__(self, transport: Any, verifier: Any, prefix: str = "") -> None:
        self.transport = transport
        self.verifier = verifier
        self.prefix = prefix


def flask_app(url: str) -> Application:
    app = flask.Flask("protected")
    verifier = Verifier(url, issuer=ISSUER, audience=AUDIENCE)
    auth = UserApi(verifier, app)

    @app.get("/media")
    @auth.required("media:read")
    def media() -> Any:
        return {"for": current_principal.id, "type": current_principal.type}

    @app.get("/fresh")
    @auth.required("media:read", fresh=True)
    async def fresh() -> Any:
        return {"for": current_principal.id}

    @app.get("/recent")
    @auth.required(max_age=60, acr="aal2")
    def recent() -> Any:
        return {"for": current_principal.id}

    @app.get("/inside")
    @auth.required()
    def inside() -> Any:
        current_principal.require("media:delete")
        return {}

    return Application(httpx2.WSGITransport(app=app, remote_addr="192.0.2.7"), verifier)


def asgi(app: Any) -> httpx2.ASGITransport:
    return httpx2.ASGITransport(app=app, client=("192.0.2.7", 1))


def fastapi_app(verifier: AsyncVerifier) -> FastAPI:
    app = FastAPI()
    auth = Auth(verifier)
    auth.install(app)

    @app.get("/media")
    async def media(who: Annotated[Principal, Depends(auth.required("media:read"))]) -> Any:
        return {"for": who.id, "type": who.type}

    @app.get("/fresh")
    async def fresh(
        who: Annotated[Principal, Depends(auth.required("media:read", fresh=True))],
    ) -> Any:
        return {"for": who.id}

    @app.get("/recent")
    async def recent(
        who: Annotated[Principal, Depends(auth.required(max_age=60, acr="aal2"))],
    ) -> Any:
        return {"for": who.id}

    @app.get("/inside")
    async def inside(who: Annotated[Principal, Depends(auth.required())]) -> Any:
        who.require("media:delete")
        return {}

    return app


def starlette_app(verifier: AsyncVerifier) -> Starlette:
    @required("media:read")
    async def media(request: Request) -> JSONResponse:
        found = request.user.principal
        assert "media:read" in request.auth.scopes
        return JSONResponse({"for": request.user.identity, "type": found.type})

    @required(max_age=60, acr="aal2")
    async def recent(request: Request) -> JSONResponse:
        return JSONResponse({"for": request.user.identity})

    @required()
    async def inside(request: Request) -> JSONResponse:
        raise PermissionDenied("media:delete")

    async def handle(request: Request, error: Exception) -> Any:
        return on_error(request, error)

    return Starlette(
        routes=[
            Route("/media", media),
            Route("/recent", recent),
            Route("/inside", inside),
        ],
        middleware=[
            Middleware(
                AuthenticationMiddleware, backend=UserApiBackend(verifier), on_error=on_error
            )
        ],
        exception_handlers={PermissionDenied: handle},
    )


def configure_django(url: str) -> None:
    """Django has one configuration in a process: only the address of the service changes."""
    userapi = {"BASE_URL": url, "ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "CACHE_SIZE": 100}
    if settings.configured:
        settings.USERAPI = userapi
    else:
        settings.configure(
            SECRET_KEY="only for tests",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF="protected_urls",
            DATABASES={},
            INSTALLED_APPS=["rest_framework"],
            MIDDLEWARE=["userapi_client.django.UserApiMiddleware"],
            USERAPI=userapi,
            REST_FRAMEWORK={
                "DEFAULT_AUTHENTICATION_CLASSES": ["userapi_client.drf.BearerAuthentication"],
                "UNAUTHENTICATED_USER": None,
            },
        )
        django.setup()
        sys.modules["protected_urls"] = django_urls()
    userapi_client.django._verifiers = userapi_client.django._Verifiers()


def django_urls() -> types.ModuleType:
    views = importlib.import_module("rest_framework.views")
    responses = importlib.import_module("rest_framework.response")
    drf = importlib.import_module("userapi_client.drf")
    needs = userapi_client.django.required

    @needs("media:read")
    def media(request: Any) -> JsonResponse:
        return JsonResponse({"for": request.principal.id, "type": request.principal.type})

    @needs("media:read")
    async def media_async(request: Any) -> JsonResponse:
        return JsonResponse({"for": request.principal.id, "type": request.principal.type})

    @needs("media:read", fresh=True)
    def fresh(request: Any) -> JsonResponse:
        return JsonResponse({"for": request.principal.id})

    @needs("media:read", fresh=True)
    async def fresh_async(request: Any) -> JsonResponse:
        return JsonResponse({"for": request.principal.id})

    @needs(max_age=60, acr="aal2")
    def recent(request: Any) -> JsonResponse:
        return JsonResponse({"for": request.principal.id})

    @needs()
    def inside(request: Any) -> JsonResponse:
        request.principal.require("media:delete")
        return JsonResponse({})

    def public(request: Any) -> JsonResponse:
        return JsonResponse({"is_known": request.principal is not None})

    def rest(handler: Any, **options: Any) -> Any:
        class Media(views.APIView):  # type: ignore[misc, name-defined]
            permission_classes = [drf.requires(*options.pop("permissions", ()), **options)]

            def get(self, request: Any) -> Any:
                assert request.user.is_authenticated and request.user.pk == request.auth.id
                return responses.Response({"for": request.user.id, "type": request.auth.type})

            if handler is not None:

                def get_exception_handler(self) -> Any:
                    return handler

        return Media.as_view()

    found = types.ModuleType("protected_urls")
    read = {"permissions": ("media:read",)}
    found.urlpatterns = [  # type: ignore[attr-defined]
        path("django/media", media),
        path("django/fresh", fresh),
        path("django/recent", recent),
        path("django/inside", inside),
        path("django/public", public),
        path("django_async/media", media_async),
        path("django_async/fresh", fresh_async),
        path("django_async/recent", recent),
        path("django_async/inside", inside),
        path("drf/media", rest(drf.problem_handler, **read)),
        path("drf/fresh", rest(drf.problem_handler, fresh=True, **read)),
        path("drf/recent", rest(drf.problem_handler, max_age=60, acr="aal2")),
        path("drf_plain/media", rest(None, **read)),
        path("drf_plain/fresh", rest(None, fresh=True, **read)),
        path("drf_plain/recent", rest(None, max_age=60, acr="aal2")),
    ]
    return found


def application(framework: str, url: str) -> Application:
    if framework == "flask":
        return flask_app(url)
    if framework in ("fastapi", "starlette"):
        verifier = AsyncVerifier(url, issuer=ISSUER, audience=AUDIENCE)
        make = fastapi_app if framework == "fastapi" else starlette_app
        return Application(asgi(make(verifier)), verifier)
    configure_django(url)
    verifiers = userapi_client.django._verifiers
    if framework == "django_async":
        return Application(asgi(ASGIHandler()), verifiers.asynchronous(), "/django_async")
    transport = httpx2.WSGITransport(app=WSGIHandler(), remote_addr="192.0.2.7")
    return Application(transport, verifiers.sync(), f"/{framework}")


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def call(framework: str, service: HostileService) -> Iterator[Call]:
    app, loop = application(framework, service.url), Loop()
    is_async = isinstance(app.transport, httpx2.AsyncBaseTransport)

    async def send_async(path: str, headers: dict[str, str]) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=app.transport, base_url="http://test") as http:
            return await http.get(app.prefix + path, headers=headers)

    def send(path: str, headers: dict[str, str]) -> httpx2.Response:
        with httpx2.Client(transport=app.transport, base_url="http://test") as http:
            return http.get(app.prefix + path, headers=headers)

    def call(path: str, *, token: str | None = None, authorization: str | None = None) -> Answer:
        headers = {"X-Correlation-ID": "abc-1"}
        if token is not None:
            authorization = f"Bearer {token}"
        if authorization is not None:
            headers["Authorization"] = authorization
        response = loop.run(send_async(path, headers)) if is_async else send(path, headers)
        return Answer(
            status=response.status_code,
            headers=response.headers,
            document=json.loads(response.content or b"null"),
        )

    yield call
    if is_async:
        loop.run(app.verifier.close())
    else:
        app.verifier.close()
    loop.close()


def is_problem(answer: Answer, framework: str, code: str) -> bool:
    if framework == "drf_plain":  # Its own form, as without `problem_handler`.
        return True
    return (
        answer.headers["Content-Type"] == "application/problem+json"
        and answer.document["code"] == code
        and answer.document["status"] == answer.status
        and answer.document["correlation_id"] == answer.headers["X-Correlation-ID"] == "abc-1"
        and answer.headers["Cache-Control"] == "no-store"
    )


@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Token x", ""])
def test_a_missing_token_is_401_with_a_challenge(
    framework: str, call: Call, authorization: str | None
) -> None:
    answer = call("/media", authorization=authorization)

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert is_problem(answer, framework, "authentication_required")


@pytest.mark.parametrize("authorization", ["Bearer x", "bearer a.b.c", "Bearer", "Bearer a b"])
def test_a_bad_token_is_401_and_says_so(framework: str, call: Call, authorization: str) -> None:
    answer = call("/media", authorization=authorization)

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    assert is_problem(answer, framework, "token_invalid")


def test_a_caller_with_the_permission_is_let_in(call: Call, service: HostileService) -> None:
    for token in (service.token(), service.token(permissions=["media:*"])):
        answer = call("/media", token=token)

        assert (answer.status, answer.document) == (200, {"for": USER, "type": "user"})


def test_a_service_key_is_let_in(call: Call, service: HostileService) -> None:
    answer = service.verified(actor_type="service", session_id=None, key_id=SESSION)
    service.reply(VERIFY, Reply(document=answer))

    assert call("/media", token=KEY).document == {"for": USER, "type": "service"}
    assert service.counts[VERIFY] == 1


def test_a_missing_permission_is_403_and_named(
    framework: str, call: Call, service: HostileService
) -> None:
    answer = call("/media", token=service.token(permissions=["media:write"]))

    assert answer.status == 403
    assert is_problem(answer, framework, "permission_denied")
    assert "media:read" in json.dumps(answer.document)
    if framework != "drf_plain":
        assert answer.document["permission"] == "media:read"


def test_a_permission_that_the_view_requires_is_403(
    framework: str, call: Call, service: HostileService
) -> None:
    if framework.startswith("drf"):
        pytest.skip("REST Framework checks permissions before the view.")
    answer = call("/inside", token=service.token())

    assert (answer.status, answer.document["permission"]) == (403, "media:delete")


def test_an_outage_is_503_with_a_time_and_never_401(
    framework: str, call: Call, service: HostileService
) -> None:
    if framework == "starlette":
        service.reply("/.well-known/jwks.json", problem(500, "internal_error"))
        answer = call("/media", token=service.token())
    else:
        service.reply(VERIFY, problem(503, "service_unavailable", Retry_After="7"))
        answer = call("/fresh", token=service.token())
        assert answer.headers["Retry-After"] == "7"

    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert is_problem(answer, framework, "service_unavailable")


def test_a_revoked_session_is_401_where_the_service_is_asked(
    framework: str, call: Call, service: HostileService
) -> None:
    if framework == "starlette":
        pytest.skip("Its middleware verifies before the endpoint is known.")
    token = service.token()
    service.reply(VERIFY, problem(401, "token_revoked"))

    assert call("/media", token=token).status == 200
    answer = call("/fresh", token=token)
    assert answer.status == 401
    assert is_problem(answer, framework, "token_revoked")


def test_an_old_authentication_is_asked_to_be_repeated(
    framework: str, call: Call, service: HostileService
) -> None:
    answer = call("/recent", token=service.token(auth_time=1_700_000_000, acr="aal1"))

    assert answer.status == 401
    assert is_problem(answer, framework, "insufficient_user_authentication")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication"')
    assert 'max_age="60"' in challenge and 'acr_values="aal2"' in challenge
    if framework != "drf_plain":
        assert (answer.document["max_age"], answer.document["acr_values"]) == (60, "aal2")


def test_the_network_of_a_bound_key_is_that_of_the_peer(
    framework: str, call: Call, service: HostileService
) -> None:
    for networks, status in ((["192.0.2.0/24"], 200), (["198.51.100.0/24"], 403)):
        answer = service.verified(session_id=None, key_id=SESSION, allowed_networks=networks)
        service.reply(VERIFY, Reply(document=answer))

        assert call("/media", token=KEY).status == status


def test_a_django_view_without_a_requirement_knows_the_caller(service: HostileService) -> None:
    app = application("django", service.url)
    with app.verifier, httpx2.Client(transport=app.transport, base_url="http://test") as http:
        known = [
            http.get("/django/public", headers=headers).json()["is_known"]
            for headers in (
                {},
                {"Authorization": "Bearer x"},
                {"Authorization": f"Bearer {service.token()}"},
            )
        ]

    assert known == [False, False, True]


def test_the_document_of_fastapi_offers_to_authorize(service: HostileService) -> None:
    document = fastapi_app(AsyncVerifier(service.url, issuer=ISSUER, audience="a")).openapi()

    schemes = document["components"]["securitySchemes"]
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes.values()] == [
        ("http", "bearer")
    ]
    assert document["paths"]["/media"]["get"]["security"] == [{name: []} for name in schemes]


def test_a_decorator_that_is_not_called_is_noticed(service: HostileService) -> None:
    auth = UserApi(Verifier(service.url, issuer=ISSUER, audience=AUDIENCE))

    with pytest.raises(TypeError):
        auth.required(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        userapi_client.django.required("media")


def test_an_unprotected_view_has_no_principal() -> None:
    with flask.Flask("open").test_request_context("/"), pytest.raises(RuntimeError):
        _ = current_principal.id
