"""Mails: the server or folder that receives them, and their delivery."""

from dataclasses import dataclass

from userapi.clock import Clock
from userapi.mail.design import MailDesign
from userapi.mail.mailer import FileMailer, Mailer, MailServer, SmtpMailer
from userapi.mail.messages import Messages
from userapi.passwords.mail_delivery import MailDelivery
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class MailServices:
    """The services that send mails."""

    mail_delivery: MailDelivery
    mail_server: MailServer | None


def build_mail(foundation: Foundation) -> MailServices:
    """Build the services that send mails."""
    settings, clock = foundation.settings, foundation.clock
    mail_server = _mail_server(settings)
    return MailServices(
        mail_delivery=MailDelivery(
            clock=clock,
            mailer=_mailer(mail_server, settings, clock),
            messages=Messages(
                service_name=settings.app_name,
                base_url=settings.public_base_url,
                design=MailDesign(logo_url=settings.mail_logo_url, color=settings.mail_color),
            ),
            one_time_tokens=OneTimeTokens(clock=clock, mails=foundation.mails),
        ),
        mail_server=mail_server,
    )


def _mail_server(settings: Settings) -> MailServer | None:
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        ca_file=settings.tls_ca_file,
        user=settings.smtp_user,
        password=settings.smtp_password,
    )


def _mailer(server: MailServer | None, settings: Settings, clock: Clock) -> Mailer:
    """Return the mailer for the server; without a server, mails are written to files."""
    if server is None:
        return FileMailer(settings.mail_folder, sender=settings.mail_from, clock=clock)
    return SmtpMailer(server, sender=settings.mail_from, clock=clock)
