"""The texts of mails, plain and HTML, from templates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from userapi.mail.models import MailKind

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A mail as it is sent."""

    recipient: str
    subject: str
    plain: str
    html: str


class Messages:
    """Renders mails. Each kind has one template, with the blocks `subject` and `body`."""

    def __init__(self, *, service_name: str, base_url: str) -> None:
        self._service_name = service_name
        self._base_url = base_url
        loader = jinja2.FileSystemLoader(TEMPLATES)
        strict = jinja2.StrictUndefined
        self._plain = jinja2.Environment(  # nosec B701
            loader=loader, undefined=strict, autoescape=False
        )
        self._html = jinja2.Environment(loader=loader, undefined=strict, autoescape=True)

    def link(self, path: str, token: str) -> str:
        """Return a link with a token in its fragment, which browsers send to no server."""
        return f"{self._base_url}{path}#token={token}"

    def write(self, kind: MailKind, *, recipient: str, data: Mapping[str, Any]) -> Message:
        """Return the mail of a kind."""
        values = {**data, "service": self._service_name, "recipient": recipient}
        template = f"{kind}.txt"
        plain = self._plain.get_template(template)
        context = plain.new_context(values)
        subject = " ".join("".join(plain.blocks["subject"](context)).split())
        paragraphs = "".join(plain.blocks["body"](context)).strip().split("\n\n")
        page = self._html.get_template("page.html")
        values.setdefault("link", None)
        return Message(
            recipient=recipient,
            subject=subject,
            plain="\n\n".join(paragraphs) + "\n",
            html=page.render(subject=subject, paragraphs=paragraphs, **values),
        )
