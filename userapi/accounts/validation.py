"""The rules for user names, addresses and passwords that the API, console and commands share."""

from collections.abc import Mapping
from typing import Any

from userapi.accounts.addresses import parse_email, parse_username
from userapi.errors import require_all
from userapi.passwords.policy import PasswordPolicy


def require_valid_names(given: Mapping[str, Any], *, reserved_allowed: bool = True) -> None:
    """Raise Invalid with every rule that the user name and the e-mail address break.

    A missing value breaks no rule.
    """
    username, email = given.get("username"), given.get("email")
    require_all(
        lambda: username is None or parse_username(username, reserved_allowed=reserved_allowed),
        lambda: email is None or parse_email(email),
    )


def require_valid_account(
    given: Mapping[str, Any], policy: PasswordPolicy, *, reserved_allowed: bool = True
) -> None:
    """Raise Invalid with every rule that the user name, address and password break.

    A missing value breaks no rule.
    """
    username, email, password = (given.get(name) for name in ("username", "email", "password"))

    def require_valid_password() -> None:
        if password is not None:
            policy.require(password, username=username, email=email)

    require_all(
        lambda: require_valid_names(given, reserved_allowed=reserved_allowed),
        require_valid_password,
    )
