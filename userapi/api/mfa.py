"""Endpoints of second factors: the second step of a log-in, and what users do with their own."""

from dataclasses import fields
from typing import Any
from uuid import UUID

from userapi.authentication.app_confirmation import AddedFactor
from userapi.authentication.token_pairs import TokenPair
from userapi.factors.errors import (
    FactorNotFound,
    InvalidCode,
    MfaNotEnabled,
    MfaRequiredByRole,
    MfaTokenInvalid,
    TooManyFactors,
    TotpDisabled,
)
from userapi.factors.passkey_errors import PasskeyInvalid
from userapi.lockout.service import TooManyAttempts
from userapi.passwords.hashing_pool import Busy

from .access import public, signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .responses import as_json
from .restrictions import enabled_by, fresh, open_to_enrollment
from .schemas.factors import Factor, Mfa
from .schemas.mfa import (
    AddedFactorAnswer,
    AppCode,
    AppRequest,
    FactorName,
    NewApp,
    NewRecoveryCodes,
    SecondStepAnswer,
)
from .schemas.proofs import SecondStep


def with_pair(pair: TokenPair, **members: object) -> dict[str, Any]:
    """Return the members of a pair and other members, without those that are None."""
    answer = {item.name: getattr(pair, item.name) for item in fields(pair)}
    return answer | {name: value for name, value in members.items() if value is not None}


def added_factor(added: AddedFactor) -> dict[str, Any]:
    """Return a new factor, recovery codes with the first one, and a new pair of tokens."""
    return with_pair(added.pair, factor=added.factor, recovery_codes=added.recovery_codes)


@blp.route("/login/mfa", methods=["POST"])
@public
@blp.arguments(SecondStep)
@blp.response(200, SecondStepAnswer)
@blp.raises(InvalidCode, MfaTokenInvalid, PasskeyInvalid, TooManyAttempts, Busy)
def login_mfa(body: dict[str, Any]) -> Any:
    """Complete a log-in with its second step.

    `code` is the code of an authenticator app or a recovery code; `credential` is a passkey.
    """
    second_step, token = services().second_step, body["mfa_token"]
    if "credential" in body:
        result = second_step.with_credential(token, body["credential"], actor=current_actor())
    else:
        result = second_step.with_code(token, body["code"], actor=current_actor())
    return with_pair(result.pair, recovery_codes_left=result.recovery_codes_left)


@blp.route("/mfa", methods=["GET"])
@signed_in
@open_to_enrollment
@blp.response(200, Mfa)
def show_mfa() -> Any:
    """Get the second factors of the signed-in user."""
    return as_json(services().factor_list.of(current_session().user_id, own=True))


@blp.route("/mfa/totp", methods=["POST"])
@signed_in
@enabled_by(lambda: services().app_setup.require_available())
@fresh
@open_to_enrollment
@blp.arguments(AppRequest, required=False)
@blp.response(201, NewApp)
@blp.raises(TotpDisabled, TooManyFactors)
def add_app(body: dict[str, Any]) -> Any:
    """Get a secret for an authenticator app. It replaces one that is not confirmed yet."""
    return services().app_setup.begin(current_session().user_id, name=body.get("name"))


@blp.route("/mfa/totp/<uuid:factor_id>/confirm", methods=["POST"])
@signed_in
@open_to_enrollment
@blp.arguments(AppCode)
@blp.response(200, AddedFactorAnswer)
@blp.raises(FactorNotFound, InvalidCode, Busy)
def confirm_app(body: dict[str, Any], factor_id: UUID) -> Any:
    """Confirm an authenticator app with a code that it shows.

    This session continues with new tokens. With the first factor come recovery codes, and all other
    sessions end.
    """
    added = services().app_confirmation.confirm(
        current_session(), factor_id, body["code"], actor=current_actor()
    )
    return added_factor(added)


@blp.route("/mfa/<uuid:factor_id>", methods=["PATCH"])
@signed_in
@blp.arguments(FactorName)
@blp.response(200, Factor)
@blp.raises(FactorNotFound)
def rename_factor(body: dict[str, Any], factor_id: UUID) -> Any:
    """Rename a second factor."""
    return services().factor_renaming.rename(
        current_session().user_id, factor_id, body["name"], actor=current_actor()
    )


@blp.route("/mfa/<uuid:factor_id>", methods=["DELETE"])
@signed_in
@fresh
@blp.response(204)
@blp.raises(FactorNotFound, MfaRequiredByRole)
def remove_factor(factor_id: UUID) -> None:
    """Remove a second factor. All other sessions end.

    With the last one, recovery codes become void and the password alone signs in.
    """
    services().factor_removal.remove(current_session().user_id, factor_id, actor=current_actor())


@blp.route("/mfa/recovery-codes", methods=["POST"])
@signed_in
@fresh
@blp.response(201, NewRecoveryCodes)
@blp.raises(MfaNotEnabled, Busy)
def replace_recovery_codes() -> Any:
    """Get ten new recovery codes. All former ones are void."""
    codes = services().recovery_code_replacement.replace(
        current_session().user_id, actor=current_actor()
    )
    return {"recovery_codes": codes}
