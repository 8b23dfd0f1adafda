"""The variables of this process: read from its environment, from `.env` and from files.

Nothing else in `userapi` reads the environment.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from userapi.settings.parsers import PROJECT_ROOT
from userapi.settings.variables import Variable, variables

_SURROGATES = re.compile("[\ud800-\udfff]")


def read_environment() -> dict[str, str]:
    """Return the variables of this process; they take precedence over those of `.env`."""
    in_file = {k: v for k, v in dotenv_values(PROJECT_ROOT / ".env").items() if v is not None}
    return {**in_file, **os.environ}


def files_with_secrets() -> list[Path]:
    """Return the existing files from which this process reads secrets."""
    environ = read_environment()
    named = [environ.get(f"{variable.name}_FILE") for variable in variables() if variable.secret]
    files = [PROJECT_ROOT / ".env", *(Path(name) for name in named if name)]
    return [file for file in files if file.is_file()]


def parse_variables(
    environ: Mapping[str, str], wanted: Iterable[Variable]
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the fields whose variables are set, and one line for each fault."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable in wanted:
        try:
            raw = _raw_text(environ, variable)
            if raw:
                values[variable.field] = _parsed(variable, raw)
        except ValueError as exc:
            problems.append(str(exc))
    return values, problems


def _raw_text(environ: Mapping[str, str], variable: Variable) -> str:
    """Return the text of a variable, or of the file that its `_FILE` variable names."""
    raw, file = environ.get(variable.name, ""), environ.get(f"{variable.name}_FILE", "")
    if not variable.secret or not file:
        return raw
    if raw:
        raise ValueError(f"{variable.name}: set it or {variable.name}_FILE, not both")
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as exc:
        raise ValueError(f"{variable.name}_FILE: must be the path of a readable file") from exc


def _parsed(variable: Variable, raw: str) -> object:
    # Python represents bytes that are not UTF-8 as surrogates (PEP 383).
    if _SURROGATES.search(raw):
        raise ValueError(f"{variable.name}: must be text in UTF-8")
    try:
        return variable.parse(raw)
    except ValueError as exc:
        raise ValueError(f"{variable.name}: {exc}") from exc
