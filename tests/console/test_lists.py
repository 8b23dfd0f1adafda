"""Lists of the console: pages by cursors, order, preferences of a browser and saved filters."""

import re
from dataclasses import replace
from html import unescape
from urllib.parse import urlencode
from uuid import UUID

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.pages import PageReader, words
from tests.support.users import MadeUser, MakeUser
from userapi.accounts.bulk_actions import BulkAction
from userapi.accounts.imports.rows import Row
from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.actor import Actor, system_actor
from userapi.infrastructure.user_counts import rebuild_user_counts
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)
OFFICE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
DESK = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
NAMES = ("ada", "bea", "cleo", "dora", "emil")


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


@pytest.fixture
def people(make_user: MakeUser) -> list[MadeUser]:
    """Return users with names in the order of the alphabet."""
    return [make_user(name) for name in NAMES]


def names_in(page: str) -> list[str]:
    return re.findall(r'href="/console/users/[0-9a-f-]{36}">([^<]+)</a>', page)


def link(page: str, text: str) -> str:
    """Return the address of a link, as a path under /console."""
    found = re.search(rf'<a [^>]*href="/console([^"]+)"[^>]*>{text}</a>', page)
    assert found, f"no link {text!r}"
    return unescape(found[1])


@pytest.mark.parametrize("path", ["/users", "/audit", "/service-accounts"])
def test_an_empty_list_says_so_once_and_a_page_of_rows_that_are_gone_leads_back(
    boss: PageReader, path: str
) -> None:
    """Below "No users match." was a further "No rows here." with a link to the same page."""
    nothing = {"/users": "search=zz", "/audit": "since=2099-01-01", "/service-accounts": "search=z"}

    empty = boss.get(f"{path}?{nothing[path]}")
    last = boss.get(f"{path}?{nothing[path]}&end=yes")

    assert "No rows here." not in words(empty) and ">First</a>" not in empty.text
    assert "match." in words(empty)
    assert ">First</a>" in last.text


@pytest.mark.parametrize("sort", ["username", "-username", "status,username", "-last_login_at"])
def test_pages_in_both_directions_contain_every_user_once(
    app: Flask, services: Services, make_user: MakeUser, sign_in: SignIn, sort: str
) -> None:
    for number in range(24):
        make_user(f"user-{number:02}")
    boss = sign_in(roles=("admin",))
    expected = names_in(boss.get(f"/users?sort={sort}&page_size=100").text)
    assert len(expected) == 25

    page = boss.get(f"/users?sort={sort}&page_size=10").text
    forwards = [names_in(page)]
    while 'rel="next"' in page:
        page = boss.get(link(page, "Next")).text
        forwards.append(names_in(page))
    assert "Rows 21–25" in page
    backwards = [names_in(page)]
    while 'rel="prev"' in page:
        page = boss.get(link(page, "Previous")).text
        backwards.insert(0, names_in(page))

    assert [len(names) for names in forwards] == [10, 10, 5]
    assert sum(forwards, []) == expected and backwards == forwards


def test_the_last_page_is_one_link_away(boss: PageReader, make_user: MakeUser) -> None:
    for number in range(24):
        make_user(f"user-{number:02}")

    first = boss.get("/users?sort=-username&page_size=10").text
    last = boss.get(link(first, "Last")).text
    before = boss.get(link(last, "Previous")).text

    assert names_in(last)[-1] == "reader" and len(names_in(last)) == 10
    assert "Rows 16–25" in words_of(last) and "Rows 6–15" in words_of(before)


def words_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_a_number_of_a_page_from_an_old_link_shows_the_first_page(
    boss: PageReader, people: list[MadeUser]
) -> None:
    answer = boss.get("/users?page=401")

    assert answer.status_code == 200 and len(names_in(answer.text)) == 6


def test_a_cursor_of_another_order_leads_to_the_first_page(
    boss: PageReader, make_user: MakeUser
) -> None:
    for number in range(12):
        make_user(f"user-{number:02}")
    following = link(boss.get("/users?sort=username&page_size=10").text, "Next")

    answer = boss.follow(boss.get(following.replace("sort=username", "sort=email")))

    assert "This page of the list is out of date." in words(answer)
    assert "13 users" in words(answer)


def test_every_order_of_the_api_is_a_link_and_keeps_the_filters(
    boss: PageReader, people: list[MadeUser]
) -> None:
    boss.post("/lists/users/view", columns=["email", "status", "created_at", "updated_at"])
    page = boss.get("/users?search=example")

    for label, key in (("User", "username"), ("E-mail", "email"), ("Changed", "updated_at")):
        assert link(page.text, label) == f"/users?search=example&sort={key}"
    assert link(boss.get("/users?sort=email").text, 'E-mail <span aria-hidden="true">↑</span>') == (
        "/users?sort=-email"
    )


def test_columns_and_page_size_are_kept_by_the_browser(
    boss: PageReader, sign_in: SignIn, make_user: MakeUser, people: list[MadeUser]
) -> None:
    assert people[0].email in boss.get("/users").text

    answer = boss.post(
        "/lists/users/view", columns=["id", "mfa"], page_size="10", filters="search=ada&sort=email"
    )

    assert answer.location == "/console/users?search=ada&sort=email"
    page = boss.get("/users?search=ada").text
    assert people[0].email not in page and f"<code>{people[0].id}</code>" in page
    assert '<option value="10" selected>' in page
    other = sign_in(make_user("other", roles=["admin"]))
    assert people[0].email in other.get("/users").text


def test_a_changed_cookie_of_preferences_shows_only_known_columns(boss: PageReader) -> None:
    boss.get("/users")
    boss.browser.set_cookie("console-user-columns", "password_hash.status", path="/console/")
    boss.browser.set_cookie("console-page-size", "1000000", path="/console/")

    page = boss.get("/users")

    assert page.status_code == 200 and ">Status</a>" in page.text
    assert "E-mail</a>" not in page.text and '<option value="25" selected>' in page.text


def test_filters_are_saved_under_a_name_found_again_and_deleted(
    boss: PageReader, sign_in: SignIn, make_user: MakeUser
) -> None:
    boss.get("/users?status=suspended")

    saved = boss.post("/lists/users/filters", name="On hold", filters="status=suspended&page=7")

    assert saved.location == "/console/users?status=suspended"
    page = boss.follow(saved)
    assert "The filter “On hold” was saved." in words(page)
    assert link(boss.get("/users").text, "On hold") == "/users?status=suspended"
    other = sign_in(make_user("other", roles=["admin"]))
    assert "On hold" not in other.get("/users").text
    boss.get("/users")
    boss.post("/lists/users/filters", name="On hold", filters="status=pending")
    assert link(boss.get("/users").text, "On hold") == "/users?status=pending"
    boss.follow(boss.post("/lists/users/filters/delete", name="On hold"))
    assert "On hold" not in boss.get("/users").text


def test_filters_need_a_name_and_their_number_is_limited(boss: PageReader) -> None:
    boss.get("/users")

    nameless = boss.follow(boss.post("/lists/users/filters", filters="status=active"))
    for number in range(20):
        boss.post("/lists/users/filters", name=f"filter {number}", filters="status=active")
    one_more = boss.follow(boss.post("/lists/users/filters", name="more", filters="status=active"))

    assert 'role="alert"' in nameless.text
    assert "You can save 20 filters. Delete one first." in words(one_more)


def test_filters_of_the_audit_log_are_saved_apart(boss: PageReader) -> None:
    boss.get("/audit")

    boss.post("/lists/audit/filters", name="Log-ins", filters="action=auth.login")

    assert link(boss.get("/audit").text, "Log-ins") == "/audit?action=auth.login"
    assert "Log-ins" not in boss.get("/users").text.split("</h1>")[1]
    assert boss.post("/lists/shoes/filters", name="x").status_code == 404


def test_a_user_without_the_permission_saves_no_filters(sign_in: SignIn) -> None:
    reader = sign_in()
    reader.get("/profile")

    assert reader.post("/lists/users/filters", name="x").status_code == 403


def test_the_way_back_from_a_user_leads_to_the_same_list(
    boss: PageReader, people: list[MadeUser]
) -> None:
    boss.get("/users?search=example&sort=username&page_size=10")

    user = boss.get(f"/users/{people[0].id}")
    back = boss.get(link(user.text, "Users"))

    assert back.location == "/console/users?search=example&sort=username&page_size=10"


def test_the_search_has_its_key_and_the_list_of_keys_is_a_dialog(boss: PageReader) -> None:
    page = boss.get("/users").text

    assert 'aria-keyshortcuts="/"' in page and "<dialog" in page
    assert 'data-copy="reader@example.com"' in page


def test_totals_that_statistics_know_are_exact(
    app: Flask, services: Services, people: list[MadeUser], make_user: MakeUser
) -> None:
    make_user("chief", roles=["admin"])
    with app.app_context():
        rebuild_user_counts()
        counted = {
            wanted: services.user_search.counted_total(wanted)
            for wanted in (
                UserFilter(),
                UserFilter(status=UserStatus.ACTIVE),
                UserFilter(role="admin"),
                UserFilter(role="moderator"),
                UserFilter(search="ada"),
                UserFilter(role="admin", status=UserStatus.ACTIVE),
            )
        }

    assert list(counted.values()) == [6, 6, 1, 0, None, None]


@pytest.fixture
def robots(app: Flask, boss: PageReader) -> list[str]:
    """Return the names of service accounts, which fill more than one page."""
    names = [f"robot-{number:02}" for number in range(12)]
    for name in names:
        assert boss.post("/service-accounts/new", name=name).status_code == 303
    return names


def robots_in(page: str) -> list[str]:
    return re.findall(r'href="/console/service-accounts/[0-9a-f-]{36}">([^<]+)</a>', page)


def test_service_accounts_are_paged_in_both_directions_and_counted(
    boss: PageReader, robots: list[str]
) -> None:
    first = boss.get("/service-accounts?sort=name&page_size=10").text
    second = boss.get(link(first, "Next")).text
    back = boss.get(link(second, "Previous")).text
    last = boss.get(link(first, "Last")).text

    assert "12 service accounts" in words_of(first) and "Rows 11–12" in words_of(second)
    assert robots_in(first) + robots_in(second) == robots
    assert robots_in(back) == robots_in(first) and robots_in(last) == robots[2:]


def test_an_outdated_page_of_service_accounts_leads_to_the_first(
    boss: PageReader, robots: list[str]
) -> None:
    following = link(boss.get("/service-accounts?sort=name&page_size=10").text, "Next")

    answer = boss.follow(boss.get(following.replace("sort=name", "sort=created_at")))

    assert "This page of the list is out of date." in words(answer)


def test_columns_and_filters_of_service_accounts_are_kept(
    boss: PageReader, robots: list[str]
) -> None:
    boss.post("/service-accounts/new", name="mover", roles=["moderator"])

    answer = boss.post(
        "/lists/service-accounts/view", columns=["client_id"], filters="role=moderator"
    )
    boss.post(
        "/lists/service-accounts/filters", name="Moderators", filters="role=moderator&sort=-name"
    )

    assert answer.location == "/console/service-accounts?role=moderator"
    page = boss.get("/service-accounts?role=moderator").text
    assert robots_in(page) == ["mover"] and "Client id</th>" in page
    assert "Active keys</th>" not in page
    saved = boss.get(link(page, "Moderators"))
    assert robots_in(saved.text) == ["mover"] and 'aria-current="true"' in saved.text
    assert "No service accounts match." in words(boss.get("/service-accounts?search=nobody"))


def roles_in(page: str) -> list[str]:
    rows = page[page.index("<tbody>") : page.index("</tbody>")]
    return re.findall(r'href="/console/roles/([a-z-]+)">', rows)


def test_roles_are_sorted_by_name_and_by_users_and_their_columns_are_chosen(
    boss: PageReader, people: list[MadeUser]
) -> None:
    page = boss.get("/roles").text
    named = roles_in(page)
    descending = 'Role <span aria-hidden="true">↑</span>'

    assert named == sorted(named) and len(named) > 2
    assert roles_in(boss.get(link(page, descending)).text) == named[::-1]
    by_users = roles_in(boss.get("/roles?sort=-user_count").text)
    assert by_users[0] == "user" and sorted(by_users) == named
    assert boss.get("/roles?sort=permissions").status_code == 422

    boss.post("/lists/roles/view", columns=["service_account_count"], filters="sort=-name")
    chosen = boss.get("/roles").text
    assert "Service accounts</a></th>" in chosen and "Own permissions</th>" not in chosen
    assert sorted(roles_in(boss.get("/roles?sort=-service_account_count").text)) == named
    boss.post("/lists/roles/filters", name="By name", filters="sort=-name")
    assert roles_in(boss.get(link(boss.get("/roles").text, "By name")).text) == named[::-1]


def actions_in(page: str) -> list[str]:
    rows = page[page.index("<tbody>") : page.index("</tbody>")]
    return re.findall(r'data-label="Action">([^<]+)<', rows)


def test_bulk_changes_are_paged_filtered_and_sorted(
    services: Services, app: Flask, boss: PageReader, people: list[MadeUser]
) -> None:
    actor = _as_user(people[0])
    with app.app_context():
        for number in range(13):
            action = BulkAction.SUSPEND if number % 2 else BulkAction.DELETE
            wanted = UserFilter(search="ada" if number < 12 else None)
            expected = services.bulk_jobs.count_matching(wanted)
            services.bulk_jobs.create(action, wanted, expected=expected, actor=actor)

    first = boss.get("/users/bulk/jobs?page_size=10").text
    second = boss.get(link(first, "Next")).text
    suspensions = boss.get("/users/bulk/jobs?action=suspend&state=queued").text

    assert "13</strong> jobs" in first
    assert len(actions_in(first)) == 10 and len(actions_in(second)) == 3
    assert set(actions_in(suspensions)) == {"Suspend"} and len(actions_in(suspensions)) == 6
    largest = boss.get("/users/bulk/jobs?sort=-size").text
    assert "0 of 6" in largest[largest.index("<tbody>") :].split("</tr>")[0]
    boss.post("/lists/bulk-jobs/view", columns=["finished_at"], filters="action=delete")
    boss.post("/lists/bulk-jobs/filters", name="Deletions", filters="action=delete")
    saved = boss.get(link(first := boss.get("/users/bulk/jobs").text, "Deletions")).text
    assert "Finished</th>" in first and "State</th>" not in first
    assert set(actions_in(saved)) == {"Delete"}
    assert boss.get("/users/bulk/jobs?state=lost").status_code == 422
    assert boss.get("/users/bulk/jobs?sort=action").status_code == 422


def test_bulk_changes_are_shown_to_those_who_may_make_them(
    services: Services, app: Flask, sign_in: SignIn, people: list[MadeUser]
) -> None:
    moderator, actor = sign_in(roles=("moderator",)), _as_user(people[0])
    with app.app_context():
        for action in (BulkAction.SUSPEND, BulkAction.DELETE):
            services.bulk_jobs.create(action, UserFilter(search="ada"), expected=1, actor=actor)

    assert actions_in(moderator.get("/users/bulk/jobs").text) == ["Suspend"]
    assert "No jobs match." in words(moderator.get("/users/bulk/jobs?action=delete"))


def _as_user(user: MadeUser) -> Actor:
    """Return a user as an actor with every permission."""
    return replace(system_actor("test"), id=UUID(user.id))


def test_checks_and_imports_are_paged_and_filtered(
    services: Services, app: Flask, boss: PageReader, people: list[MadeUser]
) -> None:
    actor = _as_user(people[0])
    rows = [Row(number=1, values={"username": "ada", "email": "ada@example.com"})]
    with app.app_context():
        for number in range(12):
            services.import_jobs.create(rows, actor=actor, dry_run=number > 0, ignored_columns=())

    page = boss.get("/users/imports?page_size=10").text
    imports = boss.get("/users/imports?dry_run=false").text

    assert "12</strong> jobs" in page and page.count('data-label="What">check<') == 10
    assert boss.get(link(page, "Next")).text.count('data-label="What">') == 2
    assert "1</strong> job ·" in imports and 'data-label="What">import<' in imports
    assert 'href="/console/users/imports">Show all</a>' in boss.get("/users/import").text


def sessions_in(page: str) -> list[str]:
    """Return the devices of a list of sessions, in its order."""
    found = re.findall(r'scope="rowgroup">.*?</svg>([^<]+)', page, re.DOTALL)
    return [name.strip() for name in found]


@pytest.fixture
def devices(app: Flask, make_user: MakeUser) -> tuple[PageReader, str]:
    """Sign a user in on three devices, and return the last one and the id of the user."""
    robin = make_user("robin")
    for program, address in ((PHONE, "192.0.2.1"), (OFFICE, "192.0.2.2"), (DESK, "198.51.100.3")):
        reader = PageReader(app)
        reader.browser.environ_base |= {"HTTP_USER_AGENT": program, "REMOTE_ADDR": address}
        reader.sign_in(robin)
    return reader, robin.id


@pytest.mark.parametrize("is_own", [True, False])
def test_sessions_are_filtered_sorted_and_their_columns_chosen(
    boss: PageReader, devices: tuple[PageReader, str], is_own: bool
) -> None:
    own, user_id = devices
    reader, address = (own, "/sessions") if is_own else (boss, f"/users/{user_id}/security")
    place = {} if is_own else {"user_id": user_id}

    assert len(sessions_in(reader.get(address).text)) == 3
    found = reader.get(f"{address}?device=Firefox+on+Windows&ip_address=192.0.2.")
    assert sessions_in(found.text) == ["Firefox on Windows"] and "Clear the filters" in found.text
    assert sessions_in(reader.get(f"{address}?device=Firefox+on+Windows&ip_address=198").text) == []
    # The session in use is first in every order.
    rising = sessions_in(reader.get(f"{address}?sort=ip_address").text)
    falling = sessions_in(reader.get(f"{address}?sort=-ip_address").text)
    phones = ["Mobile Safari on iOS", "Firefox on Windows"]
    assert rising == (["Firefox on Linux", *phones] if is_own else [*phones, "Firefox on Linux"])
    assert falling == ["Firefox on Linux", *reversed(phones)]
    assert reader.get(f"{address}?sort=device").status_code == 422

    changed = reader.post(
        f"/lists/{'sessions' if is_own else 'user-sessions'}/view",
        columns=["user_agent"],
        filters=urlencode({"sort": "ip_address"} | place),
    )

    assert changed.location == f"/console{address}?sort=ip_address"
    shown = reader.get(address).text
    assert DESK in shown
    assert shown.count('data-label="User agent"') == 3 and 'data-label="Since"' not in shown


@pytest.mark.parametrize("filters", ["", "user_id=robin"])
def test_sessions_of_nobody_have_no_page_and_filters_of_sessions_are_not_saved(
    boss: PageReader, filters: str
) -> None:
    boss.get("/sessions")

    assert boss.post("/lists/user-sessions/view", filters=filters).status_code == 404
    assert boss.post("/lists/sessions/filters", name="phone").status_code == 404


def test_columns_of_sessions_of_others_are_for_those_who_may_see_them(sign_in: SignIn) -> None:
    reader = sign_in()
    reader.get("/sessions")

    answer = reader.post("/lists/user-sessions/view", filters=f"user_id={UUID(int=1)}")

    assert answer.status_code == 403
