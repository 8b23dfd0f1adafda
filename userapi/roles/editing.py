"""Changing custom roles: one at a time, or all together to the content of a file.

Every change first locks the single row of the role catalogue, so that concurrent changes run one
after the other: each validates the graph that it changes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import Stale
from userapi.events.catalogue import EventType, RoleEvent
from userapi.infrastructure.database import after_commit, table_of, transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.recorder import Recorder
from userapi.roles.definitions import RoleDefinition, RoleDifference, read_definitions
from userapi.roles.errors import (
    BuiltinRole,
    RoleCycle,
    RoleNameTaken,
    RoleNotFound,
)
from userapi.roles.models import Role
from userapi.roles.rank import require_outranks_losers
from userapi.roles.service import Roles, RoleView
from userapi.roles.storage import lock_catalogue, next_version, write_roles
from userapi.roles.validation import normalized, require_known_parents, require_valid

_roles = table_of(Role)


class RoleWatcher(Protocol):
    """Receives changes of roles, such as a cache that they invalidate."""

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Handle a change of what a role grants, after the commit."""
        ...


class RoleEditor:
    """The use cases that change roles. Actors cannot change a role that grants more than they hold.

    Changes that would take permissions from a user whom the actor does not outrank raise
    InsufficientRank.
    """

    def __init__(self, *, recorder: Recorder, roles: Roles, watcher: RoleWatcher) -> None:
        self._recorder = recorder
        self._roles = roles
        self._watcher = watcher

    def create(
        self, wanted: RoleDefinition, *, actor: Actor, idempotency: IdempotencyStore | None = None
    ) -> RoleView:
        """Add a role. Raises Invalid, RoleNameTaken, RoleCycle, PermissionEscalation."""
        with transaction() as session:
            if idempotency:
                idempotency.claim()
            known = _locked_definitions(session)
            # A role cannot be its own parent, but the error for that is RoleCycle.
            require_valid(asdict(wanted), name=None, known={*known, wanted.name})
            wanted = normalized(wanted)
            if wanted.name in known:
                raise RoleNameTaken()
            self._apply(session, [RoleDifference(before=None, after=wanted)], known, actor)
            (view,) = self._roles.views(session, wanted.name)
            if idempotency:
                idempotency.store(view)
        return view

    def change(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> RoleView:
        """Change the given fields of a role and leave the others as they are.

        Raises RoleNotFound, BuiltinRole, Stale, Invalid (also for another name), RoleCycle,
        PermissionEscalation, InsufficientRank.
        """
        with transaction() as session:
            known = _locked_definitions(session)
            before = _custom_role(session, name, known, if_match)
            require_valid(changes, name=name, known=known)
            after = normalized(
                RoleDefinition(
                    name=name,
                    description=changes.get("description", before.description),
                    permissions=tuple(changes.get("permissions", before.permissions)),
                    parents=tuple(changes.get("parents", before.parents)),
                )
            )
            self._apply(session, [RoleDifference(before=before, after=after)], known, actor)
            (view,) = self._roles.views(session, name)
        return view

    def require_valid(self, given: Mapping[str, Any], *, name: str | None = None) -> None:
        """Raise Invalid with every rule that the given fields break. Missing fields break none.

        `name` is that of the role to be changed.
        """
        require_valid(given, name=name, known=self._roles.graph().names)

    def delete(self, name: str, *, actor: Actor, if_match: Collection[str] | None = None) -> None:
        """Delete a role that no user has and no role inherits from.

        Raises RoleNotFound, BuiltinRole, Stale, RoleInUse, PermissionEscalation, InsufficientRank.
        """
        with transaction() as session:
            known = _locked_definitions(session)
            before = _custom_role(session, name, known, if_match)
            self._apply(session, [RoleDifference(before=before, after=None)], known, actor)

    def differences(self, wanted: Iterable[RoleDefinition]) -> list[RoleDifference]:
        """Return the differences between the custom roles and these.

        Raises Invalid and BuiltinRole; changes nothing.
        """
        definitions = [normalized(definition) for definition in wanted]
        with transaction() as session:
            return _differences(session, definitions, _locked_definitions(session))

    def synchronize(
        self,
        wanted: Iterable[RoleDefinition],
        *,
        actor: Actor,
        expected: Sequence[RoleDifference],
    ) -> None:
        """Replace the custom roles by these, all or none.

        Raises Stale if the differences are no longer the expected ones, and the errors of changing
        a single role.
        """
        definitions = [normalized(definition) for definition in wanted]
        with transaction() as session:
            known = _locked_definitions(session)
            differences = _differences(session, definitions, known)
            if differences != list(expected):
                raise Stale("The roles have changed since the difference was shown.")
            self._apply(session, differences, known, actor)

    def _apply(
        self,
        session: Session,
        differences: Sequence[RoleDifference],
        known: Mapping[str, RoleDefinition],
        actor: Actor,
    ) -> None:
        """Write the differences, check the result against the rules, and record it."""
        differences = [difference for difference in differences if difference.changes]
        if not differences:
            return
        require_known_parents(differences, known)
        if any(d.after is not None and d.name in d.after.parents for d in differences):
            raise RoleCycle()
        for difference in differences:
            if difference.before is not None:
                self._roles.require_may_grant(actor, [difference.name])
        former = self._roles.graph_now()
        version = next_version(session)
        write_roles(session, differences, version=version, now=self._recorder.now())
        require_outranks_losers(actor, before=former, after=self._roles.graph_now())
        for difference in differences:
            if difference.after is not None:
                self._roles.require_may_grant(actor, [difference.name])
            self._record(difference, actor)
        after_commit(lambda: self._watcher.roles_changed(catalogue_version=version))

    def _record(self, difference: RoleDifference, actor: Actor) -> None:
        before, after = difference.before, difference.after
        state = after or before
        if state is None:
            return
        if before is None:
            action, event = AuditAction.ROLE_CREATED, EventType.ROLE_CREATED
        elif after is None:
            action, event = AuditAction.ROLE_DELETED, EventType.ROLE_DELETED
        else:
            action, event = AuditAction.ROLE_UPDATED, EventType.ROLE_UPDATED
        self._recorder.audit.record(
            action, actor=actor, target=("role", state.name), changes=difference.changes
        )
        updated = event is EventType.ROLE_UPDATED
        self._recorder.outbox.append(
            RoleEvent(
                type=event,
                name=state.name,
                permissions=state.permissions,
                parents=state.parents,
                changed=sorted(difference.changes) if updated else (),
            ),
            actor=actor,
        )


def _locked_definitions(session: Session) -> dict[str, RoleDefinition]:
    """Lock the catalogue and return all roles."""
    lock_catalogue(session)
    return read_definitions(session)


def _custom_role(
    session: Session,
    name: str,
    known: Mapping[str, RoleDefinition],
    if_match: Collection[str] | None,
) -> RoleDefinition:
    """Return the role of that name. Raises RoleNotFound, BuiltinRole, Stale."""
    if name not in known:
        raise RoleNotFound()
    row = session.execute(
        select(_roles.c.builtin, _roles.c.version).where(_roles.c.name == name)
    ).one()
    if row.builtin:
        raise BuiltinRole()
    if if_match is not None and str(row.version) not in if_match:
        raise Stale()
    return known[name]


def _differences(
    session: Session, wanted: Sequence[RoleDefinition], known: Mapping[str, RoleDefinition]
) -> list[RoleDifference]:
    """Return how the custom roles differ from the wanted ones. Raises BuiltinRole."""
    builtin = set(session.scalars(select(_roles.c.name).where(_roles.c.builtin)))
    named = {definition.name: definition for definition in wanted}
    if builtin & named.keys():
        raise BuiltinRole(f"Built in: {', '.join(sorted(builtin & named.keys()))}.")
    custom = {name: role for name, role in known.items() if name not in builtin}
    return [
        RoleDifference(before=custom.get(name), after=named.get(name))
        for name in sorted(custom.keys() | named.keys())
        if custom.get(name) != named.get(name)
    ]
