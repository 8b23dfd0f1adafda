"""The server that receives mails."""

from userapi.mail.mailer import MailServer
from userapi.settings import Settings


def build_mail_server(settings: Settings) -> MailServer | None:
    """Return the mail server of the settings; None if mails are written to files."""
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
