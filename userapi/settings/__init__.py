"""The settings: the only package that reads the environment.

`Settings.load()` returns the settings of this process, or raises `SettingsError` with one line for
each fault. A line names the variable and the valid values, never the invalid value.
"""

from userapi.settings.assembly import Settings
from userapi.settings.environment import files_with_secrets, read_environment
from userapi.settings.errors import SettingsError, faults_end_the_process
from userapi.settings.fields import JWT_ALGORITHMS
from userapi.settings.parsers import PROJECT_ROOT
from userapi.settings.production_checks import weak_secrets
from userapi.settings.variables import Variable, variables

__all__ = [
    "JWT_ALGORITHMS",
    "PROJECT_ROOT",
    "Settings",
    "SettingsError",
    "Variable",
    "faults_end_the_process",
    "files_with_secrets",
    "read_environment",
    "variables",
    "weak_secrets",
]
