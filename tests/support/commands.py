"""`flask` commands within this process: one of its own would take twenty times as long."""

from collections.abc import Mapping
from pathlib import Path

from click.testing import Result

from tests.support.deployments import disconnect
from userapi import create_app
from userapi.settings import Settings


def run_command(environment: Mapping[str, str], *arguments: str, stdin: str = "") -> Result:
    """Run a command with these settings, among them INSTANCE_DIR."""
    folder = Path(environment["INSTANCE_DIR"])
    app = create_app(Settings.from_env(environment, instance_dir=folder), web=False)
    result = app.test_cli_runner().invoke(args=list(arguments), input=stdin)
    disconnect(app)
    return result
