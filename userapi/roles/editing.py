"""Changing custom roles: one at a time, or all at once to what a file says.

Every change first locks the single row of the role catalogue, so that two of them never judge the
graph at the same time: what each sees is what it changes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session, aliased

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.characters import is_blank
from userapi.clock import Clock
from userapi.errors import Conflict, FieldError, Invalid, Stale, faults_of, require_all
from userapi.events.catalogue import EventType, RoleEvent
from userapi.events.outbox import Outbox
from userapi.infrastructure.database import (
    after_commit,
    table_of,
    transaction,
)
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.permissions import is_permission
from userapi.roles.models import Role, RoleCatalogue, RoleParent, UserRole
from userapi.roles.service import (
    PermissionEscalation,
    RoleNotFound,
    Roles,
    RoleView,
    require_outranks_losers,
)

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{1,63}", re.ASCII)
# Words of the paths under /api/v1/roles: a role of that name could not be reached.
RESERVED_NAMES = frozenset({"permissions"})
MAX_PERMISSIONS = 500
MAX_PARENTS = 50
DESCRIPTION_LENGTH = 500

_roles = table_of(Role)
_parents = table_of(RoleParent)
_user_roles = table_of(UserRole)
_catalogue = table_of(RoleCatalogue)


class RoleNameTaken(Conflict):
    """There is a role of that name already."""

    code = "role_name_taken"
    title = "A role with this name already exists."


class RoleCycle(Conflict):
    """A role would inherit from itself."""

    code = "role_cycle"
    title = "A role cannot inherit from itself."


class RoleInUse(Conflict):
    """Users have the role, or other roles inherit from it."""

    code = "role_in_use"
    title = "The role is in use."


class BuiltinRole(Conflict):
    """The role belongs to the service."""

    code = "builtin_role"
    title = "Built-in roles cannot be changed."


class RoleWatcher(Protocol):
    """Is told when roles have changed."""

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Take note, after the commit, that a role grants something else."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDefinition:
    """What a role is: all that can be written of it."""

    name: str
    description: str = ""
    permissions: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDifference:
    """What one role was and what it is to be; None where there is none."""

    before: RoleDefinition | None
    after: RoleDefinition | None

    @property
    def name(self) -> str:
        """Return the name of the role."""
        present = self.after or self.before
        return present.name if present else ""

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return each field that differs, with its old and its new value."""
        fields = ("description", "permissions", "parents")
        pairs = {
            field: (getattr(self.before, field, None), getattr(self.after, field, None))
            for field in fields
        }
        return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


class RoleEditor:
    """The use cases that change roles. Nobody touches a role that grants what they do not hold."""

    def __init__(
        self, *, clock: Clock, audit: AuditTrail, outbox: Outbox, roles: Roles, watcher: RoleWatcher
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._outbox = outbox
        self._roles = roles
        self._watcher = watcher

    def create(
        self, wanted: RoleDefinition, *, actor: Actor, once: IdempotencyStore | None = None
    ) -> RoleView:
        """Add a role. Raises Invalid, RoleNameTaken, RoleCycle, PermissionEscalation."""
        with transaction() as session:
            if once:
                once.begin()
            known = self._locked_definitions(session)
            # A role cannot be its own parent, but that is told as a cycle.
            _require_valid(asdict(wanted), name=None, known={*known, wanted.name})
            wanted = _checked(wanted)
            if wanted.name in known:
                raise RoleNameTaken()
            self._apply(session, [RoleDifference(before=None, after=wanted)], known, actor)
            (view,) = self._roles.views(session, wanted.name)
            if once:
                once.keep(view)
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
        PermissionEscalation, and InsufficientRank where somebody whom the actor does not outrank
        would lose a permission of this service.
        """
        with transaction() as session:
            known = self._locked_definitions(session)
            before = self._custom(session, name, known, if_match)
            _require_valid(changes, name=name, known=known)
            after = _checked(
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
        """Raise Invalid with every rule that the given fields break; what is left out breaks none.

        `name` is that of the role that is to be changed.
        """
        _require_valid(given, name=name, known=self._roles.graph().names)

    def delete(self, name: str, *, actor: Actor, if_match: Collection[str] | None = None) -> None:
        """Take a role away that nobody has and no role inherits from.

        Raises RoleNotFound, BuiltinRole, Stale, RoleInUse, PermissionEscalation, InsufficientRank.
        """
        with transaction() as session:
            known = self._locked_definitions(session)
            before = self._custom(session, name, known, if_match)
            self._apply(session, [RoleDifference(before=before, after=None)], known, actor)

    def differences(self, wanted: Iterable[RoleDefinition]) -> list[RoleDifference]:
        """Return what would have to change for the custom roles to be exactly these.

        Raises Invalid and BuiltinRole; changes nothing.
        """
        checked = [_checked(definition) for definition in wanted]
        with transaction() as session:
            return self._differences(session, checked, self._locked_definitions(session))

    def synchronize(
        self,
        wanted: Iterable[RoleDefinition],
        *,
        actor: Actor,
        expected: Sequence[RoleDifference],
    ) -> None:
        """Make the custom roles exactly these, all together or not at all.

        Raises Stale where the difference is no longer the expected one, and what changing a single
        role raises.
        """
        checked = [_checked(definition) for definition in wanted]
        with transaction() as session:
            known = self._locked_definitions(session)
            differences = self._differences(session, checked, known)
            if differences != list(expected):
                raise Stale("The roles have changed since the difference was shown.")
            self._apply(session, differences, known, actor)

    # Steps

    def _locked_definitions(self, session: Session) -> dict[str, RoleDefinition]:
        """Lock the catalogue against every other change of any role; return all roles."""
        session.execute(select(_catalogue.c.version).with_for_update())
        return definitions(session)

    def _custom(
        self,
        session: Session,
        name: str,
        known: Mapping[str, RoleDefinition],
        if_match: Collection[str] | None,
    ) -> RoleDefinition:
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
        self,
        session: Session,
        wanted: Sequence[RoleDefinition],
        known: Mapping[str, RoleDefinition],
    ) -> list[RoleDifference]:
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

    def _apply(
        self,
        session: Session,
        differences: Sequence[RoleDifference],
        known: Mapping[str, RoleDefinition],
        actor: Actor,
    ) -> None:
        """Write the differences, judge what came of them, and tell of them."""
        differences = [difference for difference in differences if difference.changes]
        if not differences:
            return
        _require_known_parents(differences, known)
        if any(d.after is not None and d.name in d.after.parents for d in differences):
            raise RoleCycle()
        for difference in differences:
            if difference.before is not None:
                self._require_holds_all_of(difference.name, actor)
        former = self._roles.graph_now()
        version = self._next_version(session)
        self._write(session, differences, version)
        _require_no_cycle(session)
        require_outranks_losers(actor, before=former, after=self._roles.graph_now())
        for difference in differences:
            if difference.after is not None:
                self._require_holds_all_of(difference.name, actor)
            self._tell(difference, actor)
        after_commit(lambda: self._watcher.roles_changed(catalogue_version=version))

    def _require_holds_all_of(self, name: str, actor: Actor) -> None:
        missing = actor.permissions.missing_from(self._roles.effective_now([name]))
        if missing:
            raise PermissionEscalation(missing_permissions=list(missing))

    def _next_version(self, session: Session) -> int:
        counted = (
            update(_catalogue)
            .values(version=_catalogue.c.version + 1)
            .returning(_catalogue.c.version)
        )
        return int(session.execute(counted).scalar_one())

    def _write(self, session: Session, differences: Sequence[RoleDifference], version: int) -> None:
        now = self._clock.now()
        for difference in differences:
            name, after = difference.name, difference.after
            if difference.before is not None:
                session.execute(delete(_parents).where(_parents.c.role_name == name))
            if after is None:
                continue
            # The version of the catalogue: no two states of one name ever share it, not even
            # those of a role that was deleted and one that came after it.
            values = {
                "description": after.description,
                "permissions": list(after.permissions),
                "version": version,
                "updated_at": now,
            }
            if difference.before is None:
                session.execute(
                    insert(_roles).values(name=name, builtin=False, created_at=now, **values)
                )
            else:
                session.execute(update(_roles).where(_roles.c.name == name).values(**values))
        # Only now, because new roles may inherit from one another.
        links = [
            {"role_name": difference.name, "parent_name": parent}
            for difference in differences
            if difference.after is not None
            for parent in difference.after.parents
        ]
        if links:
            session.execute(insert(_parents), links)
        for difference in differences:
            if difference.after is None:
                _remove(session, difference.name)

    def _tell(self, difference: RoleDifference, actor: Actor) -> None:
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
        self._audit.record(
            action, actor=actor, target=("role", state.name), changes=difference.changes
        )
        updated = event is EventType.ROLE_UPDATED
        self._outbox.append(
            RoleEvent(
                type=event,
                name=state.name,
                permissions=state.permissions,
                parents=state.parents,
                changed=sorted(difference.changes) if updated else (),
            ),
            actor=actor,
        )


def definitions(session: Session) -> dict[str, RoleDefinition]:
    """Return every role as it stands, by name."""
    parents: dict[str, list[str]] = {}
    for role, parent in session.execute(select(_parents)):
        parents.setdefault(role, []).append(parent)
    rows = session.execute(select(_roles.c.name, _roles.c.description, _roles.c.permissions))
    return {
        row.name: RoleDefinition(
            name=row.name,
            description=row.description,
            permissions=tuple(sorted(row.permissions)),
            parents=tuple(sorted(parents.get(row.name, ()))),
        )
        for row in rows
    }


def _form_faults(given: Mapping[str, Any]) -> Iterator[FieldError]:
    """Yield each rule that the given fields of a role break."""
    name, description = given.get("name"), given.get("description", "")
    if name is not None and not NAME_PATTERN.fullmatch(name):
        message = "Must be 2 to 64 characters of a-z, 0-9, '_' and '-', and begin with a letter."
        yield FieldError("name", message, "invalid_role_name")
    elif name in RESERVED_NAMES:
        yield FieldError("name", "This name is reserved.", "invalid_role_name")
    if len(description) > DESCRIPTION_LENGTH:
        message = f"Must be at most {DESCRIPTION_LENGTH} characters."
        yield FieldError("description", message, "too_long")
    elif description and is_blank(description):
        yield FieldError("description", "Must contain visible characters.", "blank")
    for index, permission in enumerate(given.get("permissions", ())):
        if not is_permission(permission):
            message = "Must be resource:action, resource:* or * in lower case."
            yield FieldError(f"permissions.{index}", message, "invalid_permission")


def _require_valid(given: Mapping[str, Any], *, name: str | None, known: Collection[str]) -> None:
    """Raise Invalid with every rule that the given fields of a role break.

    `name` is that of the role that is to be changed, None for a new one.
    """
    faults = list(_form_faults(given))
    if name is not None and given.get("name", name) != name:
        faults = [fault for fault in faults if fault.field != "name"]
        faults.append(FieldError("name", "A role keeps its name.", "rename_refused"))
    faults += faults_of(lambda: _require_known(given.get("parents", ()), known))
    if faults:
        raise Invalid(faults)


def _checked(wanted: RoleDefinition) -> RoleDefinition:
    """Return the definition in order and without repetitions. Raises Invalid with every fault."""
    faults = list(_form_faults(asdict(wanted)))
    if faults:
        raise Invalid(faults)
    return RoleDefinition(
        name=wanted.name,
        description=wanted.description,
        permissions=tuple(sorted(set(wanted.permissions))),
        parents=tuple(sorted(set(wanted.parents))),
    )


def _require_known_parents(
    differences: Sequence[RoleDifference], known: Mapping[str, RoleDefinition]
) -> None:
    there = known.keys() | {d.name for d in differences if d.after is not None}
    there -= {d.name for d in differences if d.after is None}
    wanted = [
        difference.after.parents for difference in differences if difference.after is not None
    ]
    require_all(*(partial(_require_known, parents, there) for parents in wanted))


def _require_known(parents: Sequence[str], known: Collection[str]) -> None:
    """Raise Invalid that names each parent that does not exist."""
    unknown = [
        FieldError(f"parents.{index}", f"There is no role {parent}.", "unknown_role")
        for index, parent in enumerate(parents)
        if parent not in known
    ]
    if unknown:
        raise Invalid(unknown)


def _require_no_cycle(session: Session) -> None:
    """Raise RoleCycle where a role is among its own ancestors, asked by one recursive query."""
    step = select(_parents.c.role_name, _parents.c.parent_name.label("ancestor")).cte(
        "ancestry", recursive=True
    )
    before = aliased(step)
    # UNION drops what was there before, so that the query ends on a cycle, too.
    step = step.union(
        select(before.c.role_name, _parents.c.parent_name).where(
            _parents.c.role_name == before.c.ancestor
        )
    )
    if session.execute(
        select(step.c.role_name).where(step.c.role_name == step.c.ancestor).limit(1)
    ).first():
        raise RoleCycle()


def _remove(session: Session, name: str) -> None:
    # Waits for whoever gives the role to somebody right now; `Roles.require_known` holds this row.
    session.execute(select(_roles.c.name).where(_roles.c.name == name).with_for_update())
    has_users = select(_user_roles.c.user_id).where(_user_roles.c.role_name == name).limit(1)
    if session.execute(has_users).first():
        raise RoleInUse("Users have this role.", role=name)
    has_children = select(_parents.c.role_name).where(_parents.c.parent_name == name).limit(1)
    child = session.execute(has_children).scalar()
    if child is not None:
        raise RoleInUse(f"The role {child} inherits from this role.", role=name)
    session.execute(delete(_roles).where(_roles.c.name == name))
