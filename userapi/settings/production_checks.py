"""What production rejects: weak secrets, insecure settings, a missing database."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import unquote, urlsplit

from userapi.rabbitmq_nodes import rabbitmq_nodes
from userapi.settings.fields import Fields
from userapi.settings.parsers import MIN_SECRET_BYTES
from userapi.settings.variables import variables

SAME_WORDS_AS_AN_EXAMPLE = re.compile(
    r"change.?(me|this|it)|your.?(secret|key|password)|example|placeholder|insecure|"
    r"dev.?secret|default|replace.?(me|this)|password123|not.?secret",
    re.IGNORECASE,
)
MIN_DIFFERENT_CHARACTERS = 8


def production_faults(settings: Fields, given: Collection[str]) -> list[str]:
    """Return one line for each setting that production rejects.

    `given` are the fields whose variables are set.
    """
    problems = _missing_secrets(settings, given)
    problems += weak_secrets({name: getattr(settings, name) for name in given})
    if settings.debug:
        problems.append("DEBUG: must be false in production")
    if "*" in settings.cors_origins:
        problems.append("CORS_ORIGINS: must be named origins in production, not *")
    if "database_url" not in given and "database_host" not in given:
        problems.append("DATABASE_URL: must be the URL of the database in production")
    broker_urls = [n.url for n in rabbitmq_nodes(settings.rabbitmq_url or "amqp://")]
    if any(map(_has_guest_account, broker_urls)):
        problems.append("RABBITMQ_URL: must have a user other than guest:guest in production")
    return problems


def weak_secrets(values: Mapping[str, object]) -> list[str]:
    """Return one line for each secret that looks like an example or is used for two variables."""
    problems = []
    by_value: dict[str, list[str]] = {}
    for variable in variables():
        if not variable.secret or variable.field.endswith("_url"):
            continue
        value = values.get(variable.field)
        if isinstance(value, str) and value:
            by_value.setdefault(value, []).append(variable.name)
            if _looks_like_an_example(value):
                problems.append(f"{variable.name}: must be a random value, not an example")
    for names in by_value.values():
        if len(names) > 1:
            problems.append(f"{', '.join(names)}: must have different values")
    return problems


def _missing_secrets(settings: Fields, given: Collection[str]) -> list[str]:
    needed = {"secret_key", "password_pepper", "encryption_key"}
    if settings.jwt_algorithm == "HS256":
        needed.add("jwt_secret_key")
    return [
        f"{name.upper()}: must be a secret of at least {MIN_SECRET_BYTES} bytes in production"
        for name in sorted(needed.difference(given))
    ]


def _has_guest_account(broker_url: str) -> bool:
    parts = urlsplit(broker_url)
    return unquote(parts.username or "") == unquote(parts.password or "") == "guest"


def _looks_like_an_example(value: str) -> bool:
    too_uniform = len(set(value)) < min(MIN_DIFFERENT_CHARACTERS, len(value))
    return too_uniform or SAME_WORDS_AS_AN_EXAMPLE.search(value) is not None
