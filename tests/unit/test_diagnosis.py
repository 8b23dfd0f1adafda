"""Facts that the diagnosis derives from files, without a server."""

from alembic.script import ScriptDirectory

from userapi.infrastructure.schema_compatibility import head_revision
from userapi.settings import PROJECT_ROOT


def test_the_newest_migration_is_the_head_of_alembic() -> None:
    """The diagnosis reads the file names, because loading Alembic takes 0.3 s."""
    migrations = ScriptDirectory(str(PROJECT_ROOT / "migrations"))

    assert head_revision() == migrations.get_current_head()
