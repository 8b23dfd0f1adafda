"""Mails and their delivery."""

from dataclasses import dataclass

from userapi.clock import Clock
from userapi.mail.design import MailDesign
from userapi.mail.mailer import FileMailer, Mailer, SmtpMailer
from userapi.mail.messages import Messages
from userapi.passwords.mail_delivery import MailDelivery
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation
from userapi.wiring.mail_server import build_mail_server


@dataclass(frozen=True, kw_only=True)
class MailServices:
    """The services that send mails."""

    mail_delivery: MailDelivery


def build_mail(foundation: Foundation) -> MailServices:
    """Build the services that send mails."""
    settings, clock = foundation.settings, foundation.clock
    return MailServices(
        mail_delivery=MailDelivery(
            clock=clock,
            mailer=_mailer(settings, clock),
            messages=Messages(
                service_name=settings.app_name,
                base_url=settings.public_base_url,
                design=MailDesign(logo_url=settings.mail_logo_url, color=settings.mail_color),
            ),
            one_time_tokens=OneTimeTokens(clock=clock, mails=foundation.mails),
        ),
    )


def _mailer(settings: Settings, clock: Clock) -> Mailer:
    """Return the mailer for the server; without a server, mails are written to files."""
    server = build_mail_server(settings)
    if server is None:
        return FileMailer(settings.mail_folder, sender=settings.mail_from, clock=clock)
    return SmtpMailer(server, sender=settings.mail_from, clock=clock)
