"""Prints the OpenAPI document of this release."""

import sys
import tempfile
from pathlib import Path

from userapi import create_app
from userapi.settings import Settings


def main() -> None:
    """Write the document to standard output."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env(
            {"ENVIRONMENT": "testing", "LOG_LEVEL": "ERROR"}, instance_dir=Path(folder)
        )
        sys.stdout.write(create_app(settings).test_client().get("/openapi.json").text)


if __name__ == "__main__":
    main()
