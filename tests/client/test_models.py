"""The models of the package are those that the OpenAPI document describes now."""

import json
import subprocess
import sys
from pathlib import Path

import generate_models
import pytest
from flask import Flask

import userapi_client
from tests.support.gunicorn import REPOSITORY


@pytest.mark.parametrize("module", generate_models.MODULES)
def test_the_models_are_current(app: Flask, module: str) -> None:
    """Otherwise run `make client-code` and read what has changed."""
    document = json.loads(app.test_client().get("/openapi.json").data)
    if not generate_models.describes(document, module):
        pytest.skip("This release has no such schemas.")
    formatted = subprocess.run(
        [Path(sys.executable).parent / "ruff", "format", "--quiet", "-"],
        input=generate_models.rendered(document, module),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (generate_models.PACKAGE / module).read_text("utf-8") == formatted


def test_the_package_has_the_version_of_the_service(app: Flask) -> None:
    document = json.loads(app.test_client().get("/openapi.json").data)

    assert userapi_client.__version__ == document["info"]["version"]
