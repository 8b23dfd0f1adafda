"""Passkeys: their relying party, challenges, and what verifies them."""

from dataclasses import dataclass

from userapi.factors.challenges import Challenges
from userapi.factors.passkey_assertion import PasskeyAssertion
from userapi.factors.passkey_registration import PasskeyRegistration
from userapi.factors.relying_party import RelyingParty
from userapi.wiring.foundation import Foundation
from userapi.wiring.metrics import MetricServices
from userapi.wiring.relying_party import build_relying_party
from userapi.wiring.secrets import SecretServices


@dataclass(frozen=True, kw_only=True)
class PasskeyServices:
    """The services about passkeys."""

    passkey_assertion: PasskeyAssertion
    passkey_registration: PasskeyRegistration
    relying_party: RelyingParty


def build_passkeys(
    foundation: Foundation, secrets: SecretServices, measured: MetricServices
) -> PasskeyServices:
    """Build the services about passkeys."""
    settings, recorder = foundation.settings, foundation.recorder
    party = build_relying_party(settings)
    challenges = Challenges(encryption=secrets.encryption, clock=foundation.clock)
    return PasskeyServices(
        passkey_assertion=PasskeyAssertion(
            recorder=recorder,
            challenges=challenges,
            relying_party=party,
            count=measured.metrics.count_second_step,
        ),
        passkey_registration=PasskeyRegistration(
            recorder=recorder,
            challenges=challenges,
            relying_party=party,
            enabled=settings.adds_passkeys,
        ),
        relying_party=party,
    )
