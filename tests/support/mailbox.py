"""The mails that the service has sent as files."""

import email
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path

from flask import Flask

from userapi.wiring.services import Services


class Mailbox:
    """Delivers due mails and keeps the received ones."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._services: Services = app.extensions["userapi"]
        self.folder: Path = self._services.settings.mail_folder

    def deliver(self) -> list[EmailMessage]:
        """Deliver due mails; return the new ones, the oldest first."""
        before = set(self.folder.glob("*.eml"))
        with self._app.app_context():
            self._services.mail_delivery.deliver_due()
        new = sorted(set(self.folder.glob("*.eml")) - before)
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in new
        ]

    def token(self) -> str:
        """Deliver due mails; return the token of the last mail that has one."""
        tokens = [token for mail in self.deliver() for token in tokens_in(plain_text(mail))]
        return tokens[-1]


def plain_text(mail: EmailMessage) -> str:
    """Return the plain part of a mail."""
    part = mail.get_body(("plain",))
    assert part is not None
    text: str = part.get_content()
    return text.replace("\r\n", "\n")  # So it comes through SMTP.


def tokens_in(text: str) -> list[str]:
    """Return the tokens that fill a line of the text."""
    return re.findall(r"^([A-Za-z0-9_-]{43})$", text, re.MULTILINE)
