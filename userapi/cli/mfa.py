"""flask mfa: which users have a second factor, and which lack one that a role demands."""

from dataclasses import asdict

import click
from flask.cli import AppGroup

from userapi.factors.foreign_passkeys import count_foreign_passkeys
from userapi.infrastructure.database import snapshot

from .support import as_json_option, print_json, print_table, safely, services

command = AppGroup("mfa", help="Show who has a second factor, by role.")


@command.command("status")
@as_json_option
@safely
def status(as_json: bool) -> None:
    """Show by role how many users have a second factor.

    It also shows how many lack one that a role demands.
    """
    figures = services().statistics.mfa_figures
    with snapshot() as connection:
        roles = figures.by_role(connection)
        counts = figures.counts(connection)
        foreign = count_foreign_passkeys(connection, services().settings.webauthn_rp_id)
    if as_json:
        print_json(
            {
                "roles": [
                    asdict(role) | {"demanded_without": role.demanded_without} for role in roles
                ],
                **asdict(counts),
                "passkeys_of_other_rp_ids": foreign,
            }
        )
        return
    print_table(
        ["ROLE", "USERS", "WITH FACTOR", "DEMANDED", "DEMANDED AND WITHOUT"],
        [
            [
                role.role,
                role.users,
                role.with_factor,
                "yes" if role.is_demanded else "no",
                role.demanded_without,
            ]
            for role in roles
        ],
    )
    click.echo(
        f"\n{counts.enabled} users have a second factor; {counts.demanded_without} lack one that a"
        f" role demands.\n{foreign} passkeys belong to another RP ID."
    )
