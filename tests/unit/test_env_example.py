"""`.env.example` and the documents describe every setting, with its true default."""

import ast
import inspect
import re
from itertools import pairwise

import pytest
from dotenv import dotenv_values

from userapi.settings import PROJECT_ROOT, Settings, Variable, fields, variables

EXAMPLE = PROJECT_ROOT / ".env.example"
GUNICORN = {
    "BIND",
    "DRAIN_SECONDS",
    "GUNICORN_THREADS",
    "KEEPALIVE_SECONDS",
    "WEB_CONCURRENCY",
}


def _descriptions() -> dict[str, str]:
    """Return the docstring of each field, by the name of its variable."""
    (declared,) = ast.parse(inspect.getsource(fields.Fields)).body
    assert isinstance(declared, ast.ClassDef)
    return {
        field.target.id.upper(): docstring.value.value.removesuffix(".")
        for field, docstring in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(docstring, ast.Expr)
        and isinstance(docstring.value, ast.Constant)
        and isinstance(docstring.value.value, str)
    }


DESCRIPTIONS = _descriptions()


def test_the_example_names_every_variable_and_no_other() -> None:
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))

    assert named == {variable.name for variable in variables()} | GUNICORN


def test_the_example_without_changes_makes_a_service_with_the_defaults() -> None:
    given = {name: value or "" for name, value in dotenv_values(EXAMPLE).items()}
    secrets = {
        name: f"{name}-of-thirty-two-bytes-or-more"
        for name in ("SECRET_KEY", "JWT_SECRET_KEY", "PASSWORD_PEPPER", "ENCRYPTION_KEY")
    }

    from_example = Settings.from_env(given | secrets)
    from_nothing = Settings.from_env(secrets)

    assert from_example == from_nothing


@pytest.mark.parametrize("variable", variables(), ids=lambda variable: variable.name)
def test_the_example_describes_the_variable(variable: Variable) -> None:
    description = re.escape(DESCRIPTIONS[variable.name])

    assert re.search(f"^# {description}\n(# )?{variable.name}=", EXAMPLE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("variable", variables(), ids=lambda variable: variable.name)
def test_the_document_describes_the_variable(variable: Variable) -> None:
    table = (PROJECT_ROOT / "docs" / "configuration.md").read_text()

    shown = f"`{variable.default}`" if variable.default else "–"
    row = next(line for line in table.splitlines() if line.startswith(f"| `{variable.name}` | "))
    _, _, default, description, _ = row.split("|", 4)
    assert default.strip() == shown
    secret = " *(secret)*" if variable.secret else ""
    expected = DESCRIPTIONS[variable.name] + secret
    assert description.replace("`", "").strip() == expected.replace("`", "")
