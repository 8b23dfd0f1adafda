"""The page to which a form returns: a path of the console, never another host."""

import re

from .cookies import PREFIX

# Visible ASCII without a backslash, which browsers read as a slash.
ONWARD = re.compile(rf"{PREFIX}[!-\[\]-~]{{0,2000}}", re.ASCII)


def path_in_console(target: str | None) -> str | None:
    """Return `target` if it is a path of the console, otherwise None.

    The check is textual: browsers read `///console/` as a host, which `urlsplit` parses as a path,
    and `%2e%2e` as the parent folder.
    """
    if target is None or not ONWARD.fullmatch(target):
        return None
    path = target.partition("?")[0].lower().replace("%2e", ".")
    return None if "//" in path or ".." in path else target
