"""Pages of users: the list, its download, and new users."""

from flask import flash, request, session
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.schemas.transfers import ExportQuery
from userapi.api.schemas.users import UserCreation, UserQuery
from userapi.api.users import new_user
from userapi.errors import ServiceError
from userapi.infrastructure.pagination import InvalidCursor
from userapi.permissions import Permission

from .access import requires
from .blueprint import blp
from .bulk import possible_actions
from .errors import page_with_errors
from .forms import read_form, read_query, typed_filters
from .granted import granted_beyond_base
from .list_preferences import NOT_FILTERS, values_of_list
from .lists import position_of, requested_page
from .problem_texts import translated
from .rendering import flash_success, page, redirect_to
from .row_actions import row_actions
from .user_filters import converted_days, user_filter
from .user_roles import described

# Where the browser's session stores the query string of the list that was shown last.
LAST_LIST = "users_list"
MAX_QUERY_LENGTH = 2000


@blp.route("/users", methods=["GET"])
@requires(Permission.USERS_READ)
def users_page() -> Response:
    """Show users, with all filters and orders of the API."""
    filters = typed_filters(UserQuery, exclude=NOT_FILTERS)
    values = values_of_list("users", filters)
    values |= {
        "unselected": values.pop("carried"),
        "statuses": [("", gettext("any")), *((s, translated(s)) for s in UserStatus)],
        "roles": [
            ("", gettext("any")),
            *((name, name) for name in sorted(services().roles.graph().names)),
        ],
        "actions": possible_actions(),
        "all_selected": request.args.get("selected") == "all",
    }
    try:
        wanted = user_filter(filters)
        users = services().user_search.page(
            wanted, requested_page(page_size=values["page_size"], sort=filters.get("sort"))
        )
    except InvalidCursor:
        flash(gettext("This page of the list is out of date. This is the first page."), "info")
        return redirect_to("users_page", **filters)
    except ServiceError as error:
        return page_with_errors(error, "users.html", users=None, **values)
    total = users.total if users.total_is_exact else services().user_search.counted_total(wanted)
    _remember_list()
    return page(
        "users.html",
        users=users,
        possible=row_actions(users.items),
        total=total,
        position=position_of(users, total),
        **values,
    )


@blp.route("/users/last-list", methods=["GET"])
@requires(Permission.USERS_READ)
def last_users_list() -> Response:
    """Redirect to the list of users as it was shown last: filters, order and page."""
    address = redirect_to("users_page")
    query = session.get(LAST_LIST)
    if query:
        address.location = f"{address.location}?{query}"
    return address


@blp.route("/users/export", methods=["GET"])
@requires(Permission.USERS_EXPORT)
def export_users() -> Response:
    """Download the users that match the filters of the page."""
    days = converted_days(request.args)
    query = read_query(ExportQuery, **{n: days[n] for n in days if n in ExportQuery().fields})
    form = query.pop("format")
    del query["bom"]  # Downloads from the console are opened in spreadsheets.
    pieces = services().user_exports.pieces(UserFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="users", now=services().clock.now(), bom=True)


@blp.route("/users/new", methods=["GET"])
@requires(Permission.USERS_CREATE)
def new_user_page() -> Response:
    """Show an empty form for a user."""
    return page("new_user.html", roles=sorted(services().roles.graph().names))


@blp.route("/users/new", methods=["POST"])
@requires(Permission.USERS_CREATE)
def create_user() -> Response:
    """Create a user, after a question if the roles grant more than those of every user.

    Without a password, the user is invited by mail.
    """
    try:
        body = read_form(UserCreation)
        added = granted_beyond_base(body.get("roles", ()))
        if added and "confirmed" not in request.form:
            return page(
                "new_user.html",
                roles=sorted(services().roles.graph().names),
                form=request.form,
                added=described(added),
            )
        user = services().account_creation.create(new_user(body), actor=current_actor())
    except ServiceError as error:
        return page_with_errors(
            error, "new_user.html", roles=sorted(services().roles.graph().names)
        )
    if "password" in body:
        message = gettext("%(name)s was created.", name=user.username)
    else:
        message = gettext("%(name)s was invited by mail.", name=user.username)
    return flash_success(message, "user_page", user_id=user.id)


def _remember_list() -> None:
    """Store the address of the list, for the link from a user back to it."""
    query = request.query_string.decode("ascii", "replace")[:MAX_QUERY_LENGTH]
    if session.get(LAST_LIST) != query:
        session[LAST_LIST] = query
