"""flask roles: list roles, and apply roles from a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml
from flask.cli import AppGroup

from userapi.characters import printable
from userapi.roles.definitions import RoleDefinition, RoleDifference

from .support import as_json_option, operator, print_json, print_table, safely, services

FIELDS = {"description", "permissions", "parents"}

command = AppGroup("roles", help="Export roles, and apply roles from a file.")


@command.command("list")
@as_json_option
@safely
def list_roles(as_json: bool) -> None:
    """List all roles."""
    if as_json:
        roles = [asdict(role) for role in services().directory.roles.all()]
        for role in roles:
            del role["version"]
        print_json({"items": roles})
        return
    print_table(
        ["ROLE", "INHERITS", "USERS", "NAMES"],
        [
            [role.name, ",".join(role.parents), role.user_count, " ".join(role.permissions)]
            for role in services().directory.roles.all()
        ],
    )


@command.command("sync")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@safely
def sync(file: Path, yes: bool, dry_run: bool) -> None:
    """Apply the custom roles of a YAML file. Shows the difference and asks for confirmation.

    \b
    roles:
      media-editor:
        description: Looks after what people upload.
        permissions: [media:upload, media:delete]
        parents: [user]

    Roles that the file does not contain are deleted. All changes are applied, or none.
    """
    wanted = read_definitions(file)
    differences = services().accounts.role_editor.differences(wanted)
    if not differences:
        click.echo("The roles match the file.")
        return
    for difference in differences:
        _show(difference)
    if dry_run:
        return
    if not yes:
        click.confirm("\nChange the roles?", abort=True)
    services().accounts.role_editor.synchronize(wanted, actor=operator(), expected=differences)
    click.secho(f"{len(differences)} roles changed.", fg="green")


def read_definitions(file: Path) -> list[RoleDefinition]:
    """Return the roles that the file defines. Raises ClickException that names the position."""
    try:
        text = file.read_text("utf-8")
        # The loader is a safe one, made stricter.
        document = yaml.load(text, Loader=_StrictLoader)  # nosec B506
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as exc:
        raise click.ClickException(f"{file} cannot be read: {exc}") from exc
    if not isinstance(document, dict) or document.keys() != {"roles"}:
        raise click.ClickException(f"{file} must contain only `roles:`.")
    roles = document["roles"] or {}
    if not isinstance(roles, dict):
        raise click.ClickException("roles: must map role names to their definitions.")
    return [_definition(name, body) for name, body in roles.items()]


def _definition(name: Any, body: Any) -> RoleDefinition:
    if not isinstance(name, str):
        raise click.ClickException(f"roles.{name}: the name must be a string.")
    body = {} if body is None else body
    if not isinstance(body, dict) or not body.keys() <= FIELDS:
        raise click.ClickException(f"roles.{name}: allowed keys are {', '.join(sorted(FIELDS))}.")
    description = body.get("description") or ""
    if not isinstance(description, str):
        raise click.ClickException(f"roles.{name}.description: must be a string.")
    return RoleDefinition(
        name=name,
        description=description.strip(),
        permissions=_texts(name, "permissions", body),
        parents=_texts(name, "parents", body),
    )


def _texts(name: str, field: str, body: dict[str, Any]) -> tuple[str, ...]:
    value = body.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise click.ClickException(f"roles.{name}.{field}: must be a list of strings.")
    return tuple(value)


def _show(difference: RoleDifference) -> None:
    if difference.before is None:
        click.secho(f"+ {difference.name}", fg="green")
    elif difference.after is None:
        click.secho(f"- {difference.name}", fg="red")
    else:
        click.secho(f"~ {difference.name}", fg="yellow")
    for field, (old, new) in difference.changes.items():
        if field == "description":
            for sign, text, color in (("-", old, "red"), ("+", new, "green")):
                if text:
                    click.secho(f"    {sign} {field}: {printable(text)}", fg=color)
            continue
        for gone in sorted(set(old or ()) - set(new or ())):
            click.secho(f"    - {field}: {gone}", fg="red")
        for added in sorted(set(new or ()) - set(old or ())):
            click.secho(f"    + {field}: {added}", fg="green")


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that rejects repeated keys: YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises ConstructorError for a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is repeated", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
