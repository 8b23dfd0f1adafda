"""Pages of roles."""

import re

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.facts import audit_rows
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser

pytestmark = pytest.mark.both_databases


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of a superadmin."""
    return sign_in(roles=("superadmin",))


def make_editor(boss: PageReader) -> None:
    answer = boss.post(
        "/roles/new",
        name="media-editor",
        description="Edits",
        parents=["user"],
        permissions=["users:read"],
        others="media:upload  media:edit",
    )
    assert answer.location == "/console/roles/media-editor"


def version_of(page: str) -> str:
    found = re.search(r"/console/roles/media-editor\?version=(\d+)", page)
    assert found
    return found[1]


def test_a_role_can_be_created_and_is_shown_below_its_parents(boss: PageReader) -> None:
    make_editor(boss)

    shown = words(boss.get("/roles/media-editor"))
    assert "media:edit, media:upload, users:read" in shown
    drawn = boss.get("/roles").text
    heights = {
        name: int(y)
        for y, name in re.findall(
            r'<rect class="node[^"]*" x="\d+" y="(\d+)".*?<title>([^<]+)', drawn, re.DOTALL
        )
    }
    assert heights["user"] < heights["media-editor"]
    assert heights["user"] < heights["moderator"] < heights["admin"] < heights["superadmin"]
    assert drawn.count('class="edge"') == 4


def test_permissions_are_grouped_by_what_people_call_their_resource(boss: PageReader) -> None:
    page = boss.get("/roles/admin")
    form = boss.get("/roles/new")

    assert "Service accounts service_accounts:* Service accounts: everything. own" in words(page)
    assert ">Service accounts</p>" in form.text and ">Audit log</p>" in form.text
    assert ">service_accounts<" not in form.text


def test_a_role_is_drawn_among_its_relatives(boss: PageReader) -> None:
    make_editor(boss)

    drawn = boss.get("/roles/moderator").text

    nodes = re.findall(r"<text .*?<title>([^<]+)", drawn)
    assert sorted(nodes) == ["admin", "moderator", "superadmin", "user"]
    assert re.search(r'href="/console/roles/moderator" aria-current="page"', drawn)
    assert drawn.count('class="edge"') == 3


def test_those_who_have_a_role_are_listed_and_all_of_them_one_click_away(
    boss: PageReader, make_user: MakeUser
) -> None:
    make_editor(boss)
    for number in range(11):
        make_user(f"writer-{number:02}", roles=["media-editor"])

    page = boss.get("/roles/media-editor")
    unused = boss.get("/roles/moderator")

    assert len(re.findall(r">(writer-\d\d)</a>", page.text)) == 10
    assert "Who has it 11 users" in words(page)
    assert 'href="/console/users?role=media-editor">All users with this role</a>' in page.text
    assert "No user has this role" in words(unused)


def test_a_change_counts_on_the_next_request_and_a_stale_one_not_at_all(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    make_editor(boss)
    api = log_in(make_user("robin", roles=["media-editor"]))
    version = version_of(boss.get("/roles/media-editor").text)

    asked = boss.post(f"/roles/media-editor?version={version}", others="media:*")
    assert asked.status_code == 200
    assert "media-editor ( 1 user )" in words(asked) and "May no longer: users:read" in words(asked)
    assert "users:read" in api.get("/api/v1/auth/me").get_json()["permissions"]
    confirmed = {"confirmed": "yes"}
    done = boss.post(f"/roles/media-editor?version={version}", others="media:*", **confirmed)
    stale = boss.post(f"/roles/media-editor?version={version}", others="jobs:*", **confirmed)

    assert (done.status_code, stale.status_code) == (303, 412)
    assert api.get("/api/v1/auth/me").get_json()["permissions"] == ["media:*"]


def test_a_cycle_and_a_malformed_permission_are_refused_where_they_were_typed(
    boss: PageReader,
) -> None:
    make_editor(boss)
    version = version_of(boss.get("/roles/media-editor").text)

    cycle = boss.post(f"/roles/media-editor?version={version}", parents=["media-editor"])
    malformed = boss.post("/roles/new", name="other-role", others="Not A Permission")

    assert cycle.status_code == 409
    assert malformed.status_code == 422 and 'id="others-error"' in malformed.text
    assert 'value="Not A Permission"' in malformed.text


def test_built_in_roles_have_no_form_and_refuse_to_change(boss: PageReader) -> None:
    page = boss.get("/roles/admin")

    assert "cannot be changed" in words(page) and "<fieldset>" not in page.text
    assert boss.post("/roles/admin?version=1", description="x").status_code == 409


def test_only_unused_roles_can_be_deleted(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    make_editor(boss)
    robin = make_user("robin", roles=["media-editor"])
    version = version_of(boss.get("/roles/media-editor").text)

    assert "1 user has this one." in words(boss.get("/roles/media-editor"))
    kept = boss.follow(boss.post(f"/roles/media-editor/delete?version={version}"))
    assert 'role="alert"' in kept.text and boss.get("/roles/media-editor").status_code == 200
    log_in(make_user("boss", roles=["superadmin"])).delete(f"/api/v1/users/{robin.id}")
    gone = boss.follow(boss.post(f"/roles/media-editor/delete?version={version}"))

    assert "was deleted" in words(gone)
    assert boss.get("/roles/media-editor").status_code == 404


def test_a_refused_change_names_the_role_in_the_audit_log(
    app: Flask, boss: PageReader, sign_in: SignIn, make_user: MakeUser
) -> None:
    make_editor(boss)
    admin = sign_in(make_user("admin2", roles=["admin"]))

    assert admin.post("/roles/media-editor", version="1", permissions=[]).status_code == 403

    (row,) = audit_rows(app, action="auth.permission_denied")
    assert (row.target_type, row.target_id) == ("role", "media-editor")


def test_who_may_only_read_roles_sees_no_form(sign_in: SignIn) -> None:
    admin = sign_in(roles=("admin",))

    assert "New role" not in words(admin.get("/roles"))
    assert admin.get("/roles/new").status_code == 403
    assert admin.post("/roles/new", name="mine").status_code == 403
