"""`.env.example` and the table in the documents tell of every setting, with its true default."""

import re

import pytest
from dotenv import dotenv_values

from userapi.settings import PROJECT_ROOT, Settings, Variable, variables

EXAMPLE = PROJECT_ROOT / ".env.example"
GUNICORN = {
    "BIND",
    "DRAIN_SECONDS",
    "GUNICORN_THREADS",
    "KEEPALIVE_SECONDS",
    "WEB_CONCURRENCY",
}


def test_the_example_names_every_variable_and_no_other() -> None:
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))

    assert named == {variable.name for variable in variables()} | GUNICORN


def test_the_example_as_it_stands_makes_a_service_with_the_defaults() -> None:
    given = {name: value or "" for name, value in dotenv_values(EXAMPLE).items()}
    secrets = {
        name: f"{name}-of-thirty-two-bytes-or-more"
        for name in ("SECRET_KEY", "JWT_SECRET_KEY", "PASSWORD_PEPPER", "ENCRYPTION_KEY")
    }

    from_example = Settings.from_env(given | secrets)
    from_nothing = Settings.from_env(secrets)

    assert from_example == from_nothing


@pytest.mark.parametrize("variable", variables(), ids=lambda variable: variable.name)
def test_the_document_tells_of_the_variable(variable: Variable) -> None:
    table = (PROJECT_ROOT / "docs" / "configuration.md").read_text()

    shown = f"`{variable.default}`" if variable.default else "–"
    assert f"| `{variable.name}` | {shown} | " in table
