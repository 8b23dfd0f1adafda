"""Rate limits: which requests are counted together, what a limit reports, and what is exempt."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.network_addresses import canonical_address

LOGIN = "/api/v1/auth/login"
# A request that only a limit rejects.
CHEAP = "/api/v1/roles/permissions"
NAMED = [
    ("RATE_LIMIT_LOGIN", LOGIN, {"username": "nobody", "password": "wrong-password-1"}),
    ("RATE_LIMIT_REGISTER", "/api/v1/auth/register", {"username": "x"}),
    ("RATE_LIMIT_PASSWORD_RESET", "/api/v1/auth/reset-password", {"email": "a@example.com"}),
    ("RATE_LIMIT_PASSWORD_RESET", "/api/v1/auth/verify-email/resend", {"email": "a@example.com"}),
    ("RATE_LIMIT_REFRESH", "/api/v1/auth/refresh", {"refresh_token": "x"}),
    ("RATE_LIMIT_PASSWORD_STRENGTH", "/api/v1/auth/password-strength", {"password": "x"}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/login/passkey/options", {}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/login/passkey", {"credential": {}}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/login/mfa", {"mfa_token": "x", "code": "x"}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/login/mfa/options", {"mfa_token": "x"}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/step-up", {"code": "x"}),
    ("RATE_LIMIT_LOGIN", "/api/v1/auth/step-up/options", {}),
]
LIMITS = tuple(
    f"RATE_LIMIT_{name}"
    for name in "DEFAULT LOGIN REGISTER PASSWORD_RESET REFRESH PASSWORD_STRENGTH".split()
)
MakeApp = Callable[..., Flask]


@pytest.fixture
def limited(make_app: MakeApp) -> Callable[..., JsonClient]:
    """Return a function that makes a client of a service with limits."""

    def limited(**environment: str) -> JsonClient:
        return JsonClient(make_app(RATE_LIMIT_ENABLED="true", **environment))

    return limited


def statuses(client: JsonClient, times: int, path: str = CHEAP, **options: object) -> list[int]:
    return [client.get(path, **options).status_code for _ in range(times)]


@pytest.mark.parametrize(("setting", "path", "body"), NAMED)
def test_a_named_limit_applies_to_an_address(
    limited: Callable[..., JsonClient], setting: str, path: str, body: object
) -> None:
    client = limited(**{setting: "2/minute"})

    given = [client.post(path, json=body) for _ in range(3)]

    assert [answer.status_code == 429 for answer in given] == [False, False, True]
    refused = given[2]
    assert refused.get_json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert client.from_address("10.9.8.7").post(path, json=body).status_code != 429


@pytest.mark.parametrize(("setting", "path", "body"), NAMED)
def test_without_settings_the_limits_are_those_that_are_promised(
    limited: Callable[..., JsonClient], setting: str, path: str, body: object
) -> None:
    promised = {
        "RATE_LIMIT_LOGIN": "20",
        "RATE_LIMIT_REGISTER": "10",
        "RATE_LIMIT_PASSWORD_RESET": "5",
        "RATE_LIMIT_REFRESH": "60",
        "RATE_LIMIT_PASSWORD_STRENGTH": "30",
    }
    client = limited()

    assert client.post(path, json=body).headers["X-RateLimit-Limit"] == promised[setting]
    assert client.get(CHEAP).headers["X-RateLimit-Limit"] == "300"


def test_the_headers_report_what_remains_and_when_it_resets(
    limited: Callable[..., JsonClient], clock: ManualClock
) -> None:
    client = limited(RATE_LIMIT_DEFAULT="3/minute")

    begun = clock.now().timestamp()
    first = client.get(CHEAP).headers
    answered = clock.now().timestamp()
    clock.advance(seconds=20)
    answers = [client.get(CHEAP) for _ in range(3)]

    assert first["X-RateLimit-Remaining"] == "2"
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert begun + 59 <= int(first["X-RateLimit-Reset"]) <= answered + 61
    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_another_window_begins_when_one_is_over(make_app: MakeApp, clock: ManualClock) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="2/minute", REDIS_URL="")
    client = JsonClient(app)

    before = statuses(client, 3)
    clock.advance(seconds=61)

    assert before == [401, 401, 429]
    assert statuses(client, 3) == [401, 401, 429]


def test_users_are_counted_by_themselves_wherever_they_are(
    make_user: MakeUser, log_in: LogIn, limited: Callable[..., JsonClient]
) -> None:
    robin, ada = log_in(make_user("robin")), log_in(make_user("ada"))
    client = limited(RATE_LIMIT_DEFAULT="2/minute")
    at_home, away = client.as_user(robin.access_token), client.from_address("10.9.8.7")

    me = "/api/v1/auth/me"
    assert statuses(at_home, 2, me) == [200, 200]
    assert statuses(away.as_user(robin.access_token), 1, me) == [429]
    assert statuses(client.as_user(ada.access_token), 2, me) == [200, 200]
    assert statuses(client, 3) == [401, 401, 429]


def test_a_forged_token_does_not_get_its_own_counter(
    make_user: MakeUser, log_in: LogIn, limited: Callable[..., JsonClient]
) -> None:
    token = log_in(make_user("robin")).access_token
    client = limited(RATE_LIMIT_DEFAULT="2/minute")

    forged = [client.as_user(f"{token[:-6]}{number:06}") for number in range(4)]

    assert [other.get(CHEAP).status_code for other in forged] == [401, 401, 429, 429]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.4", False),
        ("10.1.2.3", "10.1.2.4", False),
    ],
)
def test_a_network_of_ipv6_counts_as_one(
    limited: Callable[..., JsonClient], first: str, second: str, together: bool
) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute")

    assert statuses(client.from_address(first), 1) == [401]
    assert statuses(client.from_address(second), 1) == [429 if together else 401]


@pytest.mark.parametrize(
    ("proxies", "appended"), [("0", ""), ("1", ", 203.0.113.5"), ("2", ", 203.0.113.5, 192.0.2.1")]
)
def test_a_forged_x_forwarded_for_has_no_effect(
    limited: Callable[..., JsonClient], proxies: str, appended: str
) -> None:
    """Each trusted proxy appends its caller; only that many from the right are trusted."""
    client = limited(RATE_LIMIT_LOGIN="2/minute", TRUSTED_PROXY_COUNT=proxies)
    body = {"username": "nobody", "password": "wrong-password-1"}

    spoofed = [
        client.post(LOGIN, json=body, headers={"X-Forwarded-For": f"1.2.3.{number}{appended}"})
        for number in range(4)
    ]

    refused = [answer.status_code == 429 for answer in spoofed]
    assert refused == [False, False, True, True]


def test_behind_proxies_each_client_has_its_own_count(limited: Callable[..., JsonClient]) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute", TRUSTED_PROXY_COUNT="2")

    def ask(address: str) -> int:
        forwarded = {"X-Forwarded-For": f"{address}, 192.0.2.1"}
        return client.get(CHEAP, headers=forwarded).status_code

    assert [ask("203.0.113.5"), ask("203.0.113.5"), ask("203.0.113.6")] == [401, 429, 401]


@pytest.mark.parametrize("claimed", ["unknown", "_hidden", "1.2.3.4:none", "1.2.3", "x" * 3000])
def test_a_value_that_is_no_address_is_not_trusted(
    limited: Callable[..., JsonClient], claimed: str
) -> None:
    """It was too long for the column of the audit row: 500 on PostgreSQL."""
    client = limited(RATE_LIMIT_LOGIN="1/minute", TRUSTED_PROXY_COUNT="1")
    body = {"username": "nobody", "password": "wrong-password-1"}

    answers = [
        client.post(LOGIN, json=body, headers={"X-Forwarded-For": claimed + more}).status_code
        for more in ("", "x")
    ]

    assert answers == [401, 429]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("203.0.113.5:41000", "203.0.113.5"),
        ("2001:DB8:0:0::5", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[2001:db8::5]:41000", "2001:db8::5"),
        ("fe80::1%" + "x" * 3000, "fe80::1"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::FFFF:cb00:7105", "203.0.113.5"),
        ("[::ffff:203.0.113.5%eth0]:41000", "203.0.113.5"),
    ],
)
def test_every_notation_of_proxies_is_accepted(written: str, address: str) -> None:
    assert canonical_address(written) == address


@pytest.mark.parametrize("header", ["X-Real-IP", "Forwarded", "X-Forwarded-Host", "Client-IP"])
def test_no_other_header_is_trusted(limited: Callable[..., JsonClient], header: str) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute", TRUSTED_PROXY_COUNT="1")

    given = [client.get(CHEAP, headers={header: f"for=1.2.3.{n}"}).status_code for n in range(2)]

    assert given == [401, 429]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/health/",
        "/api/v1/health",
        "/api/v1/health/live",
        "/api/v1/health/ready",
        "/api/v1/health/serving",
        "/api/v1/health/detailed",
        "/metrics",
    ],
)
def test_health_and_metrics_are_exempt(limited: Callable[..., JsonClient], path: str) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute", HEALTH_DETAILED_PUBLIC="true")
    assert statuses(client, 2) == [401, 429]

    assert statuses(client, 3, path) == [200, 200, 200]
    assert "X-RateLimit-Limit" not in client.get(path).headers


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/auth/login", "/openapi.json"])
def test_everything_else_is_limited(limited: Callable[..., JsonClient], path: str) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute", DOCS_ENABLED="true")

    client.get(path)

    assert client.get(path).status_code == 429


def test_limits_can_be_turned_off(make_app: MakeApp) -> None:
    client = JsonClient(make_app(RATE_LIMIT_ENABLED="false", RATE_LIMIT_DEFAULT="1/minute"))

    assert statuses(client, 3) == [401, 401, 401]


def test_fifty_concurrent_requests_never_exceed_a_limit(make_app: MakeApp) -> None:
    """Two processes with one Redis, or the threads of one without."""
    environment = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_DEFAULT": "7/minute"}
    one = make_app(**environment)
    other = make_app(**environment) if one.extensions["userapi"].settings.redis_url else one

    with ThreadPoolExecutor(25) as pool:
        given = list(
            pool.map(lambda n: JsonClient((one, other)[n % 2]).get(CHEAP).status_code, range(50))
        )

    assert sorted(given) == [401] * 7 + [429] * 43


def test_a_limited_log_in_costs_no_hash(make_user: MakeUser, make_app: MakeApp) -> None:
    user = make_user("robin")
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_LOGIN="2/minute")
    client = JsonClient(app)
    body = {"username": user.username, "password": user.password}

    def hashes() -> float:
        samples = app.extensions["userapi"].metrics.registry.collect()
        return sum(
            float(sample.value)
            for family in samples
            for sample in family.samples
            if sample.name == "password_hash_seconds_count"
        )

    before = hashes()
    given = [client.post(LOGIN, json=body).status_code for _ in range(12)]

    assert given == [200] * 2 + [429] * 10
    assert hashes() - before == 2


def test_a_limited_request_is_counted_by_its_endpoint(make_app: MakeApp) -> None:
    client = JsonClient(make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="1/minute"))
    series = 'rate_limited_total{endpoint="roles.'

    def limited() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(series))

    before = limited()
    statuses(client, 3)

    assert limited() - before == 2


def test_a_limited_request_gets_a_problem_document(
    limited: Callable[..., JsonClient],
) -> None:
    client = limited(RATE_LIMIT_DEFAULT="1/minute")
    client.get(CHEAP)

    refused = client.get(CHEAP, headers={"X-Correlation-ID": "c-1"})

    assert refused.content_type == "application/problem+json"
    assert refused.headers["Cache-Control"] == "no-store"
    assert refused.headers["X-Content-Type-Options"] == "nosniff"
    assert refused.get_json()["correlation_id"] == "c-1"


def test_a_browsers_question_beforehand_is_no_log_in(limited: Callable[..., JsonClient]) -> None:
    client = limited(RATE_LIMIT_LOGIN="1/minute", CORS_ORIGINS="https://app.example")
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}

    for _ in range(3):
        assert client.request("OPTIONS", LOGIN, headers=asking).status_code == 200

    body = {"username": "nobody", "password": "wrong-password-1"}
    assert client.post(LOGIN, json=body).status_code == 401


def test_a_token_that_has_ended_counts_for_its_network_and_not_for_its_user(
    make_user: MakeUser, log_in: LogIn, limited: Callable[..., JsonClient]
) -> None:
    robin = make_user("robin")
    ended, live = log_in(robin), log_in(robin)
    client = limited(RATE_LIMIT_DEFAULT="5/minute")
    me = "/api/v1/auth/me"
    former = client.as_user(ended.access_token).from_address("10.9.8.7")
    assert former.post("/api/v1/auth/logout").status_code == 204

    assert statuses(former, 12, me) == [401] * 5 + [429] * 7
    assert statuses(former.as_user("no-token"), 1) == [429]
    answers = [client.as_user(live.access_token).get(me) for _ in range(5)]
    # The log-out above was made with a live session.
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]


def test_a_token_of_a_former_version_does_not_count_for_its_user(
    make_user: MakeUser, log_in: LogIn, limited: Callable[..., JsonClient]
) -> None:
    robin = make_user("robin")
    session = log_in(robin)
    client = limited(RATE_LIMIT_DEFAULT="5/minute")
    former = client.as_user(session.access_token).from_address("10.9.8.7")
    change = {"current_password": robin.password, "new_password": "another-harbour-57-otter"}
    renewed = former.post("/api/v1/auth/change-password", json=change).get_json()

    refused = statuses(former, 12, "/api/v1/auth/me")

    assert refused == [401] * 5 + [429] * 7
    live = client.as_user(renewed["access_token"])
    assert statuses(live, 4, "/api/v1/auth/me") == [200] * 4


def test_public_endpoints_do_not_count_for_the_user_of_an_ended_session(
    make_user: MakeUser, log_in: LogIn, limited: Callable[..., JsonClient]
) -> None:
    robin = make_user("robin")
    ended, live = log_in(robin), log_in(robin)
    ended.post("/api/v1/auth/logout")
    client = limited(RATE_LIMIT_DEFAULT="5/minute")
    former = client.as_user(ended.access_token).from_address("10.9.8.7")

    assert statuses(former, 8, "/") == [200] * 5 + [429] * 3
    assert statuses(client.as_user(live.access_token), 1, "/api/v1/auth/me") == [200]


def test_changes_of_address_are_limited_by_account(
    make_app: Callable[..., Flask], make_user: MakeUser, log_in: LogIn
) -> None:
    """25 of them sent 25 mails to addresses of the caller's choice."""
    app = make_app(RATE_LIMIT_ENABLED="true")
    robin, ada = make_user("robin"), make_user("ada")
    tokens = [log_in(robin).access_token, log_in(robin).access_token]
    path = "/api/v1/auth/change-email"

    given, recipients = [], []
    for number in range(25):
        caller = JsonClient(app, token=tokens[number % 2], ip_address=f"10.9.8.{number}")
        change = {"new_email": f"n{number}@example.com", "current_password": robin.password}
        given.append(caller.post(path, json=change).status_code)
        recipients += [mail["To"] for mail in Mailbox(app).deliver()]
    other = JsonClient(app, token=log_in(ada).access_token).post(
        path, json={"new_email": "new-ada@example.com", "current_password": ada.password}
    )

    assert given == [202] * 5 + [429] * 20
    assert [to for to in recipients if to != robin.email] == [f"n{n}@example.com" for n in range(5)]
    assert other.status_code == 202
    assert other.headers["X-RateLimit-Limit"] == "5"


@pytest.mark.parametrize(
    ("setting", "page", "path", "body"),
    [
        ("RATE_LIMIT_LOGIN", "sign-in", LOGIN, NAMED[0][2]),
        ("RATE_LIMIT_REGISTER", "sign-up", "/api/v1/auth/register", {"username": "x"}),
        ("RATE_LIMIT_PASSWORD_RESET", "forgot-password", NAMED[2][1], NAMED[2][2]),
        ("RATE_LIMIT_PASSWORD_STRENGTH", "password-strength", NAMED[5][1], NAMED[5][2]),
    ],
)
def test_a_page_counts_together_with_its_endpoint(
    limited: Callable[..., JsonClient], setting: str, page: str, path: str, body: object
) -> None:
    client = limited(**{setting: "2/minute"})

    client.post(path, json=body)
    client.post(f"/console/{page}")

    assert client.post(path, json=body).status_code == 429
    assert client.post(f"/console/{page}").status_code == 429


def test_forms_without_a_csrf_token_are_counted_before_they_are_read(
    limited: Callable[..., JsonClient],
) -> None:
    client = limited(**dict.fromkeys(LIMITS, "5/minute"))
    pages = sorted(
        rule.rule.replace("<uuid:user_id>", "01890000-0000-7000-8000-000000000000")
        for rule in client.app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in (rule.methods or ())
    )
    assert len(pages) > 15

    for number, page in enumerate(pages):
        sender = client.from_address(f"10.1.1.{number}")
        form = ReadCounter(b"username=robin&password=x")
        given = [
            sender.post(
                page,
                input_stream=form,
                content_type="application/x-www-form-urlencoded",
                environ_overrides={"CONTENT_LENGTH": "25"},
            ).status_code
            for _ in range(6)
        ][-1]
        reads = form.reads
        refused = sender.post(
            page, input_stream=form, environ_overrides={"CONTENT_LENGTH": "25"}
        ).status_code

        assert (page, given, refused) == (page, 429, 429)
        assert form.reads == reads


class ReadCounter(io.BytesIO):
    """A body that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes, and count."""
        self.reads += 1
        return super().read(size)
