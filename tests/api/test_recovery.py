"""Password reset, verification and change of addresses, account deletion, data export."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import insert, text

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.mailbox import Mailbox, plain_text, tokens_in
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import UserStatus
from userapi.actor import Actor, ActorType, system_actor
from userapi.audit.actions import AuditAction
from userapi.audit.reading import ROWS_PER_CHUNK
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, new_id, transaction
from userapi.sessions.models import UserSession
from userapi.wiring.services import Services

pytestmark = pytest.mark.core

NEW_PASSWORD = "granite-otter-57-teapot"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def ask_for_reset(client: JsonClient, email: str) -> Any:
    return client.post("/api/v1/auth/reset-password", json={"email": email})


def confirm(client: JsonClient, token: str, password: str = NEW_PASSWORD) -> tuple[int, Any]:
    answer = client.post(
        "/api/v1/auth/reset-password/confirm", json={"token": token, "new_password": password}
    )
    return answer.status_code, answer.get_json(silent=True)


def can_log_in(client: JsonClient, username: str, password: str) -> bool:
    body = {"username": username, "password": password}
    return bool(client.post("/api/v1/auth/login", json=body).status_code == 200)


# Resetting


def test_a_forgotten_password_is_reset(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    session = log_in(robin)
    assert ask_for_reset(client, robin.email).status_code == 202
    (mail,) = mailbox.deliver()
    (token,) = tokens_in(plain_text(mail))

    status, _ = confirm(client, token)

    assert status == 204
    assert mail["To"] == robin.email
    assert f"#token={token}" in plain_text(mail)
    html = mail.get_body(("html",))
    assert html is not None and f"#token={token}" in html.get_content()
    assert can_log_in(client, "robin", NEW_PASSWORD)
    assert not can_log_in(client, "robin", PASSWORD)
    assert session.get("/api/v1/auth/me").status_code == 401
    assert len(audit_rows(app, action="auth.password_reset_requested")) == 1
    assert len(audit_rows(app, action="auth.password_reset")) == 1
    assert [m["Subject"] for m in mailbox.deliver()] == ["Your password was changed"]


def test_every_address_gets_the_same_response_and_only_one_gets_a_mail(
    client: JsonClient, robin: MadeUser, make_user: MakeUser, mailbox: Mailbox
) -> None:
    sus = make_user("sus", status=UserStatus.SUSPENDED)

    answers = [
        ask_for_reset(client, address)
        for address in (robin.email, sus.email, "nobody@example.com", "no address")
    ]

    assert {(a.status_code, a.data) for a in answers} == {(202, b'{"status":"accepted"}')}
    assert [mail["To"] for mail in mailbox.deliver()] == [robin.email]
    assert mailbox.deliver() == []


def test_a_mail_goes_to_the_stored_address_and_not_to_the_typed_one(
    client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    ask_for_reset(client, "ROBIN@Example.COM")

    assert [mail["To"] for mail in mailbox.deliver()] == ["robin@example.com"]


def test_a_token_works_once(client: JsonClient, robin: MadeUser, mailbox: Mailbox) -> None:
    ask_for_reset(client, robin.email)
    token = mailbox.token()

    assert confirm(client, token)[0] == 204
    status, problem = confirm(client, token, "another-heron-88-basket")

    assert (status, problem["code"]) == (400, "invalid_token")


def test_of_concurrent_resets_with_one_token_one_succeeds(
    app: Flask, client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    ask_for_reset(client, robin.email)
    token = mailbox.token()

    def attempt(number: int) -> int:
        return confirm(JsonClient(app), token, f"granite-otter-57-teapot-{number}")[0]

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(attempt, range(20)))

    assert sorted(statuses) == [204] + [400] * 19
    assert len(audit_rows(app, action="auth.password_reset")) == 1


def test_a_weak_password_leaves_the_token_valid(
    client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    ask_for_reset(client, robin.email)
    token = mailbox.token()

    weak, unchanged = confirm(client, token, "password1"), confirm(client, token, PASSWORD)

    assert weak[0] == unchanged[0] == 422
    assert unchanged[1]["errors"][0]["code"] == "password_unchanged"
    assert confirm(client, token)[0] == 204


def test_a_token_expires_after_an_hour(
    client: JsonClient, robin: MadeUser, mailbox: Mailbox, clock: ManualClock
) -> None:
    ask_for_reset(client, robin.email)
    token = mailbox.token()

    clock.advance(minutes=60, seconds=1)

    assert confirm(client, token)[1]["code"] == "invalid_token"


def _ask_again(client: JsonClient, _boss: SignedInClient, robin: SignedInClient) -> None:
    ask_for_reset(client, "robin@example.com")
    Mailbox(client.app).deliver()


def _change_password(_client: JsonClient, _boss: SignedInClient, robin: SignedInClient) -> None:
    body = {"current_password": PASSWORD, "new_password": "another-heron-88-basket"}
    assert robin.post("/api/v1/auth/change-password", json=body).status_code == 200


def _change_email(_client: JsonClient, boss: SignedInClient, robin: SignedInClient) -> None:
    me = robin.get("/api/v1/auth/me").get_json()["id"]
    answer = boss.patch(f"/api/v1/users/{me}", json={"email": "new@example.com"})
    assert answer.status_code == 200


def _suspend_and_activate(_client: JsonClient, boss: SignedInClient, robin: SignedInClient) -> None:
    me = robin.get("/api/v1/auth/me").get_json()["id"]
    assert boss.post(f"/api/v1/users/{me}/suspend").status_code == 200
    assert boss.post(f"/api/v1/users/{me}/activate").status_code == 200


VOIDING = [_ask_again, _change_password, _change_email, _suspend_and_activate]


@pytest.mark.parametrize("void", VOIDING, ids=lambda function: function.__name__)
@pytest.mark.parametrize("mail_is_sent", [True, False], ids=["sent", "queued"])
def test_a_token_is_void_after_a_change_of_the_account(
    client: JsonClient,
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
    mailbox: Mailbox,
    void: Callable[[JsonClient, SignedInClient, SignedInClient], None],
    mail_is_sent: bool,
) -> None:
    boss, session = log_in(make_user("boss", roles=["admin"])), log_in(robin)
    ask_for_reset(client, robin.email)
    token = mailbox.token() if mail_is_sent else None

    void(client, boss, session)

    if token is not None:
        assert confirm(client, token)[1]["code"] == "invalid_token"
    elif void is not _ask_again:
        assert [t for mail in mailbox.deliver() for t in tokens_in(plain_text(mail))] == []


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 60_000])
def test_a_wrong_token_is_400(client: JsonClient, token: str) -> None:
    """One of more than 200 characters was 422."""
    proof = client.post("/api/v1/auth/verify-email", json={"token": token})

    assert confirm(client, token)[1]["code"] == "invalid_token"
    assert (proof.status_code, proof.get_json()["code"]) == (400, "invalid_token")


def test_a_reset_clears_the_lock(client: JsonClient, robin: MadeUser, mailbox: Mailbox) -> None:
    for _ in range(6):
        can_log_in(client, "robin", "wrong-password-1")
    ask_for_reset(client, robin.email)

    confirm(client, mailbox.token())

    assert can_log_in(client, "robin", NEW_PASSWORD)


def test_a_token_is_valid_only_for_its_purpose(
    client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    ask_for_reset(client, robin.email)
    (mail,) = mailbox.deliver()
    (token,) = tokens_in(plain_text(mail))

    answer = client.post("/api/v1/auth/verify-email", json={"token": token})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_token")
    assert confirm(client, token)[0] == 204


def test_no_raw_token_is_stored(
    app: Flask, client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    ask_for_reset(client, robin.email)
    token = mailbox.token()
    confirm(client, token)

    with app.app_context():
        for table in db.metadata.tables:
            rows = db.session.execute(text(f"SELECT * FROM {table}")).all()
            assert token not in repr(rows), table
        db.session.rollback()


# Invitations


def test_an_invited_user_sets_a_password_and_logs_in(
    app: Flask,
    client: JsonClient,
    make_user: MakeUser,
    log_in: LogIn,
    mailbox: Mailbox,
    clock: ManualClock,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    new = {"username": "ada", "email": "ada@example.com"}
    assert boss.post("/api/v1/users/", json=new).get_json()["status"] == "pending"
    token = mailbox.token()
    clock.advance(days=6)

    status, _ = confirm(client, token)

    assert status == 204
    assert can_log_in(client, "ada", NEW_PASSWORD)
    user = log_in(MadeUser(id="", username="ada", email="", password=NEW_PASSWORD)).get(
        "/api/v1/auth/me"
    )
    assert user.get_json()["email_verified"] is True
    assert [e.type for e in events(app)][-5:-1] == [
        "user.email_verified",
        "user.activated",
        "user.password_changed",
        "session.created",
    ]


def test_an_administrator_sends_a_reset(
    client: JsonClient, robin: MadeUser, make_user: MakeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    boss, session = log_in(make_user("boss", roles=["admin"])), log_in(robin)

    answer = boss.post(f"/api/v1/users/{robin.id}/reset-password")

    assert answer.status_code == 202
    assert session.get("/api/v1/auth/me").status_code == 401
    assert confirm(client, mailbox.token())[0] == 204


# Addresses


def test_a_registered_address_is_verified(
    make_app: Callable[..., Flask], clock: ManualClock
) -> None:
    app = make_app(FEATURE_EMAIL_VERIFICATION="true")
    client, mailbox = JsonClient(app), Mailbox(app)
    new = {"username": "ada", "email": "ada@example.com", "password": NEW_PASSWORD}
    client.post("/api/v1/auth/register", json=new)
    first = mailbox.token()
    resend = client.post("/api/v1/auth/verify-email/resend", json={"email": new["email"]})
    second = mailbox.token()

    void = client.post("/api/v1/auth/verify-email", json={"token": first})
    good = client.post("/api/v1/auth/verify-email", json={"token": second})

    assert resend.status_code == 202
    assert (void.status_code, void.get_json()["code"]) == (400, "invalid_token")
    assert good.status_code == 204
    assert can_log_in(client, "ada", NEW_PASSWORD)
    assert len(audit_rows(app, action="user.email_verified")) == 1


def test_no_verification_is_sent_again_to_a_verified_address(
    client: JsonClient, robin: MadeUser, mailbox: Mailbox
) -> None:
    for address in (robin.email, "nobody@example.com"):
        answer = client.post("/api/v1/auth/verify-email/resend", json={"email": address})
        assert (answer.status_code, answer.data) == (202, b'{"status":"accepted"}')

    assert mailbox.deliver() == []


def test_an_address_is_changed_by_its_new_owner(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    session = log_in(robin)
    answer = session.post(
        "/api/v1/auth/change-email",
        json={"new_email": "hood@example.com", "current_password": PASSWORD},
    )
    confirmation, notice = sorted(mailbox.deliver(), key=lambda mail: str(mail["To"]))
    assert session.get("/api/v1/auth/me").get_json()["email"] == robin.email

    (token,) = tokens_in(plain_text(confirmation))
    verified = client.post("/api/v1/auth/verify-email", json={"token": token})

    assert (answer.status_code, verified.status_code) == (202, 204)
    assert (confirmation["To"], notice["To"]) == ("hood@example.com", robin.email)
    me = session.get("/api/v1/auth/me").get_json()
    assert (me["email"], me["email_verified"]) == ("hood@example.com", True)
    assert len(audit_rows(app, action="user.email_change_requested")) == 1
    assert audit_rows(app, action="user.email_changed")[0].changes == {
        "email": [robin.email, "hood@example.com"]
    }


def test_only_the_owner_of_an_address_in_use_is_notified(
    robin: MadeUser, make_user: MakeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    make_user("other")
    session = log_in(robin)

    answer = session.post(
        "/api/v1/auth/change-email",
        json={"new_email": "other@example.com", "current_password": PASSWORD},
    )

    assert answer.status_code == 202
    told = {str(mail["To"]): mail["Subject"] for mail in mailbox.deliver()}
    assert told["other@example.com"] == "You already have an account"


def test_changing_an_address_needs_the_password(robin: MadeUser, log_in: LogIn) -> None:
    answer = log_in(robin).post(
        "/api/v1/auth/change-email",
        json={"new_email": "hood@example.com", "current_password": "wrong-password-1"},
    )

    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_credentials")


# Deletion and export


def test_a_user_deletes_their_own_account(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)
    wrong = session.delete("/api/v1/users/me", json={"current_password": "wrong-password-1"})

    answer = session.delete("/api/v1/users/me", json={"current_password": PASSWORD})

    assert wrong.status_code == 401
    assert answer.status_code == 204
    assert session.get("/api/v1/auth/me").status_code == 401
    assert not can_log_in(client, "robin", PASSWORD)
    assert len(events(app, type_="user.deleted")) == 1


def test_the_last_superadmin_cannot_delete_their_account(
    make_user: MakeUser, log_in: LogIn
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))

    answer = chief.delete("/api/v1/users/me", json={"current_password": PASSWORD})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "last_superadmin")


def test_a_user_exports_all_of_their_data(
    app: Flask, robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("other")
    session = log_in(robin)

    document = session.get("/api/v1/users/me/export").get_json()

    assert document.keys() == {"profile", "sessions", "mfa", "api_keys", "audit"}
    assert document["profile"]["username"] == "robin"
    assert [s["id"] for s in document["sessions"]] == [session.session_id]
    assert [row["action"] for row in document["audit"]] == ["user.created", "auth.login"]
    assert "password_hash" not in str(document)
    assert len(audit_rows(app, action="user.exported")) == 1


def fill_log(app: Flask, user: MadeUser, number: int) -> None:
    """Record as many actions of a user as of another user about them, alternately."""
    actor = Actor(type=ActorType.USER, id=UUID(user.id), username=user.username)
    services: Services = app.extensions["userapi"]
    with app.app_context(), transaction():
        for count in range(number):
            services.audit.record(
                AuditAction.USER_UPDATED,
                actor=system_actor("tests") if count % 2 else actor,
                target=("user", user.id),
                details={"count": count},
            )


def test_a_long_export_is_one_document_in_order(app: Flask, robin: MadeUser, log_in: LogIn) -> None:
    session = log_in(robin)
    fill_log(app, robin, 2 * ROWS_PER_CHUNK + 10)

    answer = session.get("/api/v1/users/me/export")

    rows = answer.get_json()["audit"]
    counts = [row["details"]["count"] for row in rows if row["action"] == "user.updated"]
    assert counts == list(range(2 * ROWS_PER_CHUNK + 10))
    assert len({row["id"] for row in rows}) == len(rows)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my-data.json"'


def test_all_sessions_of_a_long_list_are_in_the_export(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)
    made = {str(new_id()) for _ in range(1200)}
    services: Services = app.extensions["userapi"]
    now = services.clock.now()
    with app.app_context(), transaction() as database:
        database.execute(
            insert(UserSession),
            [
                {
                    "id": UUID(session_id),
                    "user_id": UUID(robin.id),
                    "kind": "api",
                    "rotated_at": now,
                    "created_at": now,
                    "last_used_at": now,
                    "expires_at": now,
                }
                for session_id in made
            ],
        )

    document = session.get("/api/v1/users/me/export").get_json()

    assert {s["id"] for s in document["sessions"]} == made | {session.session_id}


def test_an_error_during_an_export_leaves_no_complete_document(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)
    fill_log(app, robin, 2 * ROWS_PER_CHUNK + 10)
    answer = session.get("/api/v1/users/me/export", buffered=False)
    pieces = answer.iter_encoded()
    sent = [next(pieces)]
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_logs RENAME TO audit_logs_away"))

    try:
        with pytest.raises(Exception, match="audit_logs"):
            for piece in pieces:
                sent.append(piece)
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_logs_away RENAME TO audit_logs"))

    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        json.loads(b"".join(sent))


# Introspection and revocation


@pytest.fixture
def inspector(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("inspector", roles=["admin"]))


def introspect(client: JsonClient, token: str) -> Any:
    return client.post("/api/v1/auth/introspect", json={"token": token}).get_json()


def test_a_service_introspects_a_token(
    inspector: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    mod = make_user("mod", roles=["moderator"])
    session = log_in(mod)

    access = introspect(inspector, session.access_token)
    refresh = introspect(inspector, session.refresh_token)

    assert (
        access.keys() - {"acr", "amr", "auth_time"}
        == refresh.keys()
        == {
            "active",
            "sub",
            "sid",
            "username",
            "scope",
            "roles",
            "token_type",
            "exp",
            "iat",
            "iss",
            "aud",
            "jti",
        }
    )
    assert (access["active"], access["token_type"]) == (True, "access")
    assert (access["sub"], access["username"]) == (mod.id, "mod")
    assert "users:read" in access["scope"].split(" ")
    assert refresh["token_type"] == "refresh"


def test_an_invalid_token_is_only_reported_as_inactive(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    session, other = log_in(robin), log_in(robin)
    session.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})
    other.post("/api/v1/auth/logout")

    worthless = [
        session.refresh_token,
        other.access_token,
        other.refresh_token,
        "nonsense",
        "a.b.c",
        "",
    ]

    assert [introspect(inspector, token) for token in worthless] == [{"active": False}] * 6


def test_a_token_may_be_sent_in_a_form(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)

    answer = inspector.post(
        "/api/v1/auth/introspect",
        data=f"token={session.access_token}&token_type_hint=access_token",
        content_type="application/x-www-form-urlencoded",
    )

    assert answer.get_json()["active"] is True


def test_introspection_requires_its_permission(
    client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    assert client.post("/api/v1/auth/introspect", json={"token": "x"}).status_code == 401
    answer = log_in(robin).post("/api/v1/auth/introspect", json={"token": "x"})
    assert answer.get_json()["permission"] == "tokens:introspect"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_a_revoked_token_ends_its_session(
    client: JsonClient, robin: MadeUser, log_in: LogIn, kind: str
) -> None:
    session = log_in(robin)

    answer = client.post("/api/v1/auth/revoke", json={"token": getattr(session, kind)})
    again = client.post("/api/v1/auth/revoke", json={"token": getattr(session, kind)})

    assert (answer.status_code, again.status_code) == (200, 200)
    assert session.get("/api/v1/auth/me").status_code == 401


def test_revoking_an_invalid_token_is_no_error(client: JsonClient) -> None:
    as_form = client.post(
        "/api/v1/auth/revoke",
        data="token=nonsense",
        content_type="application/x-www-form-urlencoded",
    )

    assert as_form.status_code == 200
    assert client.post("/api/v1/auth/revoke", json={}).status_code == 422


def test_there_are_no_public_keys_under_hs256(client: JsonClient) -> None:
    answer = client.get("/.well-known/jwks.json")

    assert answer.get_json() == {"keys": []}
    assert answer.headers["Cache-Control"] == "public, max-age=300"


def test_security_txt_names_a_contact(client: JsonClient) -> None:
    answer = client.get("/.well-known/security.txt")

    assert answer.mimetype == "text/plain"
    assert answer.text.startswith("Contact: mailto:")
    assert "Expires: " in answer.text


def test_mails_stay_queued_while_the_mail_server_is_unreachable(
    make_app: Callable[..., Flask], robin: MadeUser, clock: ManualClock
) -> None:
    app = make_app(SMTP_HOST="127.0.0.1", SMTP_PORT="9", SMTP_STARTTLS="false")
    ask_for_reset(JsonClient(app), robin.email)
    services = app.extensions["userapi"]

    with app.app_context():
        first = services.mail_delivery.deliver_due()
        at_once = services.mail_delivery.deliver_due()

    (mail,) = mails(app)
    assert (first, at_once) == (0, 0)
    assert (mail.sent_at, mail.attempts, mail.last_error) == (None, 0, "ConnectionRefusedError")
    # It is due as soon as the server is back; until then the whole queue pauses.
    assert mail.next_attempt_at <= clock.now()
    assert mail.parked_at is None
