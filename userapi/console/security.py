"""The viewer's second factors: authenticator apps, passkeys and recovery codes."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import session
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.restrictions import enabled_by, fresh, open_to_enrollment
from userapi.api.schemas.mfa import AppCode, AppRequest, FactorName
from userapi.errors import ServiceError
from userapi.factors.app_setup import NewApp
from userapi.factors.errors import FactorNotFound
from userapi.factors.listing import MfaView, OwnPasskeyView

from .access import renew_session, signed_in
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import read_form
from .one_time_forms import accepted_once
from .rendering import flash_success, page

# Under this name the session records that a factor was removed and the browser is not yet informed.
REMOVED = "factor_removed"


@blp.route("/security", methods=["GET"])
@signed_in
@open_to_enrollment
def security_page() -> Response:
    """Show the second factors, and how many recovery codes are left."""
    mfa = services().factor_list.of(current_session().user_id, own=True)
    # Only after a removal: a list that is older than a new passkey would hide it in the browser.
    accepted = _accepted_passkeys(mfa) if session.pop(REMOVED, False) else None
    return page("security.html", mfa=mfa, accepted_passkeys=accepted)


def _accepted_passkeys(mfa: MfaView) -> dict[str, Any] | None:
    """Return what the browser's `signalAllAcceptedCredentials` reads (WebAuthn Level 3 §5.1.10)."""
    if mfa.webauthn is None:
        return None
    return {
        "rpId": mfa.webauthn.rp_id,
        "userId": mfa.webauthn.user_id,
        "allAcceptedCredentialIds": [
            factor.credential_id for factor in mfa.factors if isinstance(factor, OwnPasskeyView)
        ],
    }


@blp.route("/security/apps", methods=["POST"])
@signed_in
@enabled_by(lambda: services().app_setup.require_available())
@fresh
@open_to_enrollment
def begin_app() -> Response:
    """Show the secret of a new authenticator app, and ask for a code of it."""
    try:
        name = read_form(AppRequest).get("name")
        new = services().app_setup.begin(current_session().user_id, name=name)
    except ServiceError as error:
        return flash_error(error, "security_page")
    return page("new_app.html", new=new, factor_id=new.id)


@blp.route("/security/apps/<uuid:factor_id>/confirm", methods=["POST"])
@signed_in
@open_to_enrollment
def confirm_app(factor_id: UUID) -> Response:
    """Add the app. With the first factor, show recovery codes; all other sessions end."""
    try:
        added = services().app_confirmation.confirm(
            current_session(), factor_id, read_form(AppCode)["code"], actor=current_actor()
        )
    except FactorNotFound as error:
        return flash_error(error, "security_page")
    except ServiceError as error:
        return page_with_errors(
            error, "new_app.html", new=_unconfirmed_app(factor_id), factor_id=factor_id
        )
    renew_session(added.pair)
    if added.recovery_codes:
        return recovery_codes_page(added.recovery_codes, first=True)
    return flash_success(gettext("The authenticator app was added."), "security_page")


def recovery_codes_page(codes: Sequence[str], *, first: bool) -> Response:
    """Show recovery codes, which can be printed. `first` says that a factor was added with them."""
    return page("recovery_codes.html", codes=codes, first=first, created_at=services().clock.now())


def _unconfirmed_app(factor_id: UUID) -> NewApp | None:
    """Return the app to show its secret again; None if the session is no longer fresh."""
    live = current_session()
    if services().freshness.shortfall(live) is not None:
        return None
    return services().app_setup.find_unconfirmed(live.user_id, factor_id)


@blp.route("/security/factors/<uuid:factor_id>/rename", methods=["POST"])
@signed_in
def rename_factor(factor_id: UUID) -> Response:
    """Rename a factor."""
    try:
        services().factor_renaming.rename(
            current_session().user_id,
            factor_id,
            read_form(FactorName)["name"],
            actor=current_actor(),
        )
    except ServiceError as error:
        return flash_error(error, "security_page")
    return flash_success(gettext("The name was changed."), "security_page")


@blp.route("/security/factors/<uuid:factor_id>/remove", methods=["POST"])
@signed_in
@fresh
def remove_factor(factor_id: UUID) -> Response:
    """Remove a factor. All other sessions end; with the last one, the password alone signs in."""
    try:
        services().factor_removal.remove(
            current_session().user_id, factor_id, actor=current_actor()
        )
    except ServiceError as error:
        return flash_error(error, "security_page")
    session[REMOVED] = True
    return flash_success(
        gettext("The factor was removed. All other sessions have ended."), "security_page"
    )


@blp.route("/security/recovery-codes", methods=["POST"])
@signed_in
@fresh
@accepted_once("security_page")
def replace_recovery_codes() -> Response:
    """Show ten new recovery codes. All former ones are void."""
    try:
        codes = services().recovery_code_replacement.replace(
            current_session().user_id, actor=current_actor()
        )
    except ServiceError as error:
        return flash_error(error, "security_page")
    return recovery_codes_page(codes, first=False)
