"""What the OpenAPI document needs beyond flask-smorest, so that generators make good clients of it.

Each operation gets a name, each answer says which members are always there, each member says what
it is. The tables are here, and not at each schema, because one name means the same everywhere.
"""

import re
from collections.abc import Iterator
from typing import Any

from flask import Flask

Document = dict[str, Any]

METHODS = ("get", "post", "put", "patch", "delete")

# Names of operations by endpoint; generators make functions of them, so they never change.
OPERATION_IDS = {
    "activity.index": "list_user_activity",
    "audit.export": "export_audit_entries",
    "audit.index": "list_audit_entries",
    "auth.change_email": "change_email",
    "auth.change_password": "change_password",
    "auth.confirm_password_reset": "confirm_password_reset",
    "auth.end_other_sessions": "end_my_other_sessions",
    "auth.end_session": "end_my_session",
    "auth.introspect": "introspect_token",
    "auth.login": "login",
    "auth.logout": "logout",
    "auth.me": "get_me",
    "auth.password_strength": "check_password_strength",
    "auth.refresh": "refresh_tokens",
    "auth.register": "register",
    "auth.request_password_reset": "request_password_reset",
    "auth.resend_verification": "resend_email_verification",
    "auth.revoke": "revoke_token",
    "auth.sessions": "list_my_sessions",
    "auth.verify": "verify_token",
    "auth.verify_email": "verify_email",
    "health.detailed": "get_detailed_health",
    "health.index": "get_health",
    "health.live": "get_liveness",
    "health.ready": "get_readiness",
    "index": "get_index",
    "metrics": "get_metrics",
    "roles.create": "create_role",
    "roles.delete": "delete_role",
    "roles.index": "list_roles",
    "roles.permissions": "list_permissions",
    "roles.replace": "replace_role",
    "roles.show": "get_role",
    "statistics.show": "get_user_statistics",
    "transfers.cancel_import": "cancel_import",
    "transfers.export_users": "export_users",
    "transfers.import_results": "list_import_results",
    "transfers.show_import": "get_import",
    "transfers.import_users": "import_users",
    "users.activate": "activate_user",
    "users.change_many": "bulk_change_users",
    "users.create": "create_user",
    "users.delete": "delete_user",
    "users.delete_me": "delete_my_account",
    "users.end_session": "end_user_session",
    "users.end_sessions": "end_user_sessions",
    "users.explain_permissions": "explain_user_permissions",
    "users.export_me": "export_my_data",
    "users.index": "list_users",
    "users.list_sessions": "list_user_sessions",
    "users.replace": "replace_user",
    "users.replace_me": "replace_my_profile",
    "users.replace_roles": "replace_user_roles",
    "users.reset_password": "reset_user_password",
    "users.show": "get_user",
    "users.show_me": "get_my_profile",
    "users.show_roles": "get_user_roles",
    "users.suspend": "suspend_user",
    "users.unlock": "unlock_user",
    "users.update": "update_user",
    "users.update_me": "update_my_profile",
    "wellknown.jwks": "get_signing_keys",
    "wellknown.security": "get_security_contact",
}

# Members of answers that are left out at times; every other member is always there.
SOMETIMES_LEFT_OUT: dict[str, frozenset[str]] = {
    "BulkResult": frozenset({"code"}),
    "ImportResult": frozenset({"id", "code", "errors"}),
    "Index": frozenset({"console", "docs", "redoc", "openapi"}),
    "Introspected": frozenset(
        {"sub", "sid", "username", "scope", "roles", "token_type", "exp", "iat", "iss", "aud"}
        | {"jti"}
    ),
    "JsonWebKey": frozenset({"crv", "x", "y", "n", "e"}),
}
# A problem always has these; what else it has depends on its code.
ALWAYS_IN_A_PROBLEM = {
    *("type", "title", "status", "detail", "instance", "code", "correlation_id"),
}

# What a member is, by its name, or by schema and name where the name alone does not say it.
MEANINGS = {
    "acceptable": "Whether the password may be used.",
    "access_token": "The token that authorizes each request, as `Authorization: Bearer …`.",
    "action": "What to do, or what was done.",
    "active": "Whether the token is valid at this moment.",
    "active_users": "Users who have logged in within a number of days.",
    "actor_id": "The user who acted; null for the system and for anonymous callers.",
    "actor_type": "Who acted: user, service, system or anonymous.",
    "actor_username": "The name that the actor had then.",
    "all_sessions": "End every session of the user, not only this one.",
    "aud": "Audience of the token (JWT_AUDIENCE).",
    "audit": "Audit entries about the user, or by them.",
    "avatar_url": "http or https URL of a picture; null if there is none.",
    "builtin": "Whether the role belongs to the service and cannot be changed.",
    "by_role": "Number of users by role.",
    "by_status": "Number of users by status.",
    "changes": "Changed fields, each as `[old, new]`; secrets are masked.",
    "checks": "State of each dependency.",
    "code": "Stable code that clients switch on.",
    "components": "State of each component.",
    "correlation_id": "Identifies the request in the log, the audit log and events.",
    "created": "Number of users that were created.",
    "created_after": "Only what was created after this moment.",
    "created_at": "When it was created.",
    "created_before": "Only what was created before this moment.",
    "current": "Whether this is the session of the request.",
    "current_password": "The present password of the signed-in user.",
    "database": "PostgreSQL, or the SQLite file.",
    "date": "The UTC day.",
    "days": "Figures by UTC day, the oldest first.",
    "description": "What it is for.",
    "detail": "What went wrong with this request.",
    "details": "Further facts about the action; null if there are none.",
    "device": "Readable name of browser and system.",
    "done": "Number of rows that are done.",
    "dry_run": "Whether everything was checked and nothing changed.",
    "effective_permissions": "All that the role grants, inherited permissions included.",
    "email": "E-mail address.",
    "email_verified": "Whether the owner of the address has confirmed it.",
    "errors": "Each field that broke a rule.",
    "exp": "When the token expires, in seconds since 1970.",
    "expires_at": "When it expires.",
    "failed": "Number that failed.",
    "failed_logins": "Refused log-ins.",
    "field": "Dotted path of the field in the request.",
    "finished_at": "When it ended; null while it has not.",
    "first_name": "First name; null if unknown.",
    "ignored_columns": "Columns of the file that an import does not use.",
    "import_id": "Id of the import.",
    "iat": "When the token was issued, in seconds since 1970.",
    "id": "Id (UUID, version 7).",
    "ip_address": "Address that the request came from.",
    "iss": "Issuer of the token (JWT_ISSUER).",
    "items": "The entries.",
    "instance": "Path of the request.",
    "issues": "Rules that the password breaks.",
    "jti": "Id of the token.",
    "last_login_after": "Only users who have logged in after this moment.",
    "last_login_at": "The last log-in; null if there was none.",
    "last_login_before": "Only users whose last log-in is before this moment.",
    "last_name": "Last name; null if unknown.",
    "last_seen": "Last heartbeat of a worker; null if there was none.",
    "last_used_at": "When it was last used.",
    "latency_ms": "Time of a round trip in milliseconds; null if there is no answer.",
    "live_sessions": "Sessions that have not ended.",
    "locale": "Language tag (BCP 47); null if unknown.",
    "locked": "Whether too many failed log-ins lock the user; in figures, how many users.",
    "locked_until": "When the lock after too many failed log-ins ends; null if not locked.",
    "lockouts": "Locks after too many failed log-ins.",
    "logins": "Successful log-ins.",
    "message": "What is wrong, for people.",
    "metadata": "Object of the administrators' own, up to 16 KiB.",
    "migration": "`pending` where the database is not migrated to the present version.",
    "must_change_password": "Whether the user has to change the password first.",
    "name": "Name.",
    "new_email": "The address to change to; it is confirmed by mail first.",
    "new_password": "The password to set, 8 to 128 characters.",
    "next_cursor": "Value of `cursor` for the next part; null at the end.",
    "occurred_at": "When it happened.",
    "oldest_seconds": "Age of the oldest in seconds; null if unknown.",
    "outbox": "Events that wait to be published.",
    "outcome": "success, failure or denied.",
    "page": "Number of this page, from 1.",
    "page_size": "Entries on a page.",
    "pages": "Number of pages.",
    "parents": "Roles that this one inherits from.",
    "password": "Password, 8 to 128 characters.",
    "pending": "Number that waits; null if unknown.",
    "permission": "A permission, as `resource:action`.",
    "permissions": "Permissions, as `resource:action`.",
    "phone": "Telephone number; null if unknown.",
    "profile": "The user.",
    "rabbitmq": "RabbitMQ; disabled if none is configured.",
    "reason": "Why, for the audit log.",
    "redis": "Redis; disabled if none is configured.",
    "refresh_token": "Gets the next pair of tokens, once.",
    "registrations": "New users.",
    "remember_me": "Stay signed in for longer.",
    "results": "One result each, in order.",
    "revoked": "Number of sessions that were ended.",
    "role": "Name of a role.",
    "roles": "Names of roles.",
    "row": "Number of the row, from 1.",
    "service": "Name of the service.",
    "session_id": "Id of the session.",
    "sessions": "Sessions of the user.",
    "sid": "Id of the session.",
    "started_at": "When it began; null while it has not.",
    "state": "queued, running, done, failed or cancelled.",
    "status": "State.",
    "status_reason": "Why the user has this status; null if no reason was given.",
    "sub": "Id of the user.",
    "succeeded": "Number that succeeded.",
    "suggestions": "Hints for a better password.",
    "suspended_until": "When the suspension ends by itself; null if it does not.",
    "target_id": "Id of what was acted on.",
    "target_type": "Kind of what was acted on.",
    "timestamp": "Time of the answer.",
    "timezone": "Name of a time zone (IANA); null if unknown.",
    "title": "Summary of the code.",
    "token": "A token.",
    "token_type": "Kind of the token.",
    "token_type_hint": "Accepted and not needed (RFC 7009).",
    "total": "How many there are.",
    "total_is_exact": "False where there are more than `total`.",
    "type": "URN of the code.",
    "until": "When it ends by itself; null if it does not.",
    "updated_at": "When it was last changed.",
    "user": "The user.",
    "user_agent": "User-Agent of the client.",
    "user_count": "Number of users who have the role.",
    "user_id": "Id of the user.",
    "user_ids": "Ids of the users, 1000 at most.",
    "username": "User name.",
    "version": "Version of the service.",
    "worker": "The worker beside the service.",
    "Health.status": "healthy",
    "Liveness.status": "alive",
    "Readiness.status": "ready, degraded or not_ready.",
    "DetailedHealth.status": "healthy, degraded or unhealthy.",
    "Component.status": "up, down or disabled.",
    "Problem.status": "HTTP status.",
    "User.status": "pending, active or suspended.",
    "Myself.status": "pending, active or suspended.",
    "BulkResult.code": "Why it failed; left out where it did not.",
    "ImportResult.code": "Why it failed; left out where it did not.",
    "AuditEntry.action": "What was done, such as `user.suspended`.",
    "Login.username": "User name or e-mail address.",
}

PARAMETERS = {
    "format": "ndjson or csv.",
    "since": "Only what happened at this moment or later.",
    "until": "Only what happened before this moment.",
}


def finish(document: Document, app: Flask) -> None:
    """Complete the document in place."""
    _name_operations(document, app)
    schemas: dict[str, Document] = document["components"]["schemas"]
    answers = set(_reachable(_answers_of(document), schemas)) | {"Problem"}
    bodies = set(_reachable(_bodies_of(document), schemas))
    for name in answers - bodies:
        _describe_answer(name, schemas[name])
    for name, schema in schemas.items():
        _explain_members(name, schema)
    for _, _, operation in operations(document):
        _explain_parameters(operation)
    for item in document["paths"].values():
        _explain_parameters(item)


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Return path, method and content of each operation."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _name_operations(document: Document, app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        item = document["paths"].get(re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) & {method.upper() for method in METHODS}:
            operation = item.get(method.lower())
            if operation is not None:
                *subject, function = rule.endpoint.split(".")
                by_name = "_".join([function, *subject])
                operation["operationId"] = OPERATION_IDS.get(rule.endpoint, by_name)


def _answers_of(document: Document) -> Iterator[Any]:
    for _, _, operation in operations(document):
        yield operation.get("responses")


def _bodies_of(document: Document) -> Iterator[Any]:
    for _, _, operation in operations(document):
        yield operation.get("requestBody")


def _reachable(places: Iterator[Any], schemas: dict[str, Document]) -> Iterator[str]:
    """Return the names of the schemas that are used there, directly or by others."""
    waiting, seen = list(places), set()
    while waiting:
        place = waiting.pop()
        if isinstance(place, list):
            waiting.extend(place)
        elif isinstance(place, dict):
            reference = place.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
                name = reference.rsplit("/", 1)[1]
                if name not in seen:
                    seen.add(name)
                    waiting.append(schemas[name])
                    yield name
            waiting.extend(value for key, value in place.items() if key != "example")


def _describe_answer(name: str, schema: Document) -> None:
    """Say which members are always there, and that there may be more of them one day."""
    schema.pop("additionalProperties", None)
    members = schema.get("properties", {})
    always = members.keys() - SOMETIMES_LEFT_OUT.get(name, frozenset())
    if name == "Problem":
        always = members.keys() & ALWAYS_IN_A_PROBLEM
    if always:
        schema["required"] = sorted(always)
    for member in members.values():
        if "default" in member:
            _make_constant(member)


def _make_constant(member: Document) -> None:
    """Describe what is always the same as a type with one value."""
    value = member.pop("default")
    if isinstance(value, bool):
        member["type"] = "boolean"
    elif isinstance(value, str):
        member |= {"type": "string", "enum": [value]}


def _explain_members(name: str, schema: Document) -> None:
    for member, described in schema.get("properties", {}).items():
        _explain(described, MEANINGS.get(f"{name}.{member}") or MEANINGS.get(member))


def _explain_parameters(holder: Document) -> None:
    for parameter in holder.get("parameters", ()):
        name = parameter.get("name", "")
        _explain(parameter, PARAMETERS.get(name) or MEANINGS.get(name))


def _explain(described: Document, meaning: str | None) -> None:
    # What stands beside a reference is ignored in OpenAPI 3.0.
    if meaning and not {"description", "$ref", "allOf"} & described.keys():
        described["description"] = meaning
