"""The texts of mails, plain and HTML, from templates in the language of the recipient."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from userapi.languages import Reader, translations_of
from userapi.mail.design import MailDesign
from userapi.mail.message import Message
from userapi.mail.models import MailKind

TEMPLATES = Path(__file__).parent / "templates"


class Messages:
    """Renders mails.

    Each kind has one template. It has the blocks `subject` and `body`; for a mail with a link also
    `action`, the label of the button, and `after`, the text below it. `page.txt` and `page.html`
    arrange them.
    """

    def __init__(self, *, service_name: str, base_url: str, design: MailDesign) -> None:
        self._service_name = service_name
        self._base_url = base_url
        self._design = design

    def link(self, path: str, token: str) -> str:
        """Return a link with a token in its fragment, which browsers send to no server."""
        return f"{self._base_url}{path}#token={token}"

    def write(
        self, kind: MailKind, *, recipient: str, reader: Reader, data: Mapping[str, Any]
    ) -> Message:
        """Return the mail of a kind in the language and the time zone of its reader."""

        def moment(text: str) -> str:
            return f"{reader.moment(datetime.fromisoformat(text))} ({reader.zone_name})"

        values = {name: _on_one_line(value) for name, value in data.items()}
        values |= {"service": self._service_name, "recipient": recipient, "moment": moment}
        texts = _environment(reader.catalogue, for_html=False)
        template = texts.get_template(f"{kind}.txt")
        context = template.new_context(values)
        blocks = {name: "".join(block(context)) for name, block in template.blocks.items()}
        page: dict[str, Any] = {
            **values,
            "link": values["link"] if "action" in blocks else None,
            "subject": _on_one_line(blocks["subject"]),
            "body": _paragraphs(blocks["body"]),
            "action": blocks.get("action"),
            "after": _paragraphs(blocks.get("after", "")),
            "language": reader.language_tag,
            "design": self._design,
        }
        pages = _environment(reader.catalogue, for_html=True)
        return Message(
            recipient=recipient,
            language=reader.language_tag,
            subject=page["subject"],
            plain=texts.get_template("page.txt").render(page),
            html=pages.get_template("page.html").render(page),
        )


@cache
def _environment(catalogue: str, *, for_html: bool) -> jinja2.Environment:
    # The text part is no HTML: `autoescape` is on for the page alone.
    environment = jinja2.Environment(  # nosec B701
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=for_html,
        trim_blocks=for_html,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    texts = translations_of(catalogue)
    environment.install_gettext_translations(texts, newstyle=True)  # type: ignore[attr-defined]
    return environment


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines separate."""
    return [_on_one_line(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _on_one_line(value: Any) -> Any:
    """Return a text without line breaks, which would start a new paragraph."""
    return " ".join(value.split()) if isinstance(value, str) else value
