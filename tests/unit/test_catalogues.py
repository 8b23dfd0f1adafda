"""The catalogues have every text, in every language, with the same placeholders."""

import re

import pytest
from babel.messages.catalog import Message
from jinja2 import Environment

from tests.support.catalogues import TRANSLATED, catalogue_of, extracted, mo_file, po_file, updated
from userapi.languages import LANGUAGES, TRANSLATIONS, translations_of

PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[a-z%]")


def texts_of(value: object) -> list[str]:
    """Return the singular and the plurals of a text."""
    return [value] if isinstance(value, str) else [str(text) for text in value or ()]  # type: ignore[attr-defined]


def placeholders(value: object) -> list[set[str]]:
    return [set(PLACEHOLDER.findall(text)) for text in texts_of(value)]


def messages_of(language: str) -> list[Message]:
    return [message for message in catalogue_of(language) if message.id]


def test_english_and_german_are_there() -> None:
    assert LANGUAGES[0] == "en"
    assert "de" in TRANSLATED


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_catalogue_has_the_texts_of_the_source_and_is_compiled(language: str) -> None:
    """`make messages` updates both files."""
    po, mo = updated(language, extracted())

    assert po_file(language).read_bytes() == po
    assert mo_file(language).read_bytes() == mo


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_text_is_translated(language: str) -> None:
    untranslated = [m.id for m in messages_of(language) if not all(texts_of(m.string) or [""])]
    fuzzy = [m.id for m in messages_of(language) if m.fuzzy]

    assert untranslated == []
    assert fuzzy == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_translations_have_the_placeholders_of_their_text(language: str) -> None:
    """A missing placeholder would hide a value, and an unknown one would fail in use."""
    for message in messages_of(language):
        expected = set().union(*placeholders(message.id))
        for found in placeholders(message.string):
            assert found == expected, message.id


def test_no_template_assigns_the_name_of_the_translation() -> None:
    """`{% set _ = … %}` replaced the function `_` in the rest of a template."""
    templates = list((TRANSLATIONS.parent / "console" / "templates").rglob("*.html"))

    assert [file.name for file in templates if "set _ " in file.read_text("utf-8")] == []
    assert len(templates) > 20


def unmarked_texts(template: str) -> list[str]:
    """Return the words for people that a template does not mark for translation."""
    source = ""
    for _, kind, value in Environment(extensions=["jinja2.ext.i18n"]).lex(template):
        source += value if kind == "data" else "\n" * kind.endswith("_begin")
    shown = re.sub(r"<(code|kbd)\b.*?</\1>", "", source, flags=re.DOTALL)
    attributes = re.findall(r'(?:alt|aria-label|data-confirm|data-label|title)="([^"]*)"', shown)
    texts = [*attributes, *re.sub(r"<[^>]*>", "\n", shown).splitlines()]
    return [text.strip() for text in texts if re.search(r"[A-Za-z]{2}", text)]


@pytest.mark.parametrize(
    ("template", "unmarked"),
    [
        ('<p class="x">{{ _("Users") }} · {{ name }}</p>', []),
        ("<h1>Users of {{ name }}</h1>", ["Users of"]),
        ('<td data-label="User"><code>users:read</code></td>', ["User"]),
        ('<button aria-label="Select {{ name }}">…</button>', ["Select"]),
    ],
)
def test_unmarked_texts_are_found(template: str, unmarked: list[str]) -> None:
    assert unmarked_texts(template) == unmarked


def test_templates_mark_each_text_for_translation() -> None:
    templates = sorted((TRANSLATIONS.parent / "console" / "templates").rglob("*.html"))
    found = {file.name: unmarked_texts(file.read_text("utf-8")) for file in templates}

    unmarked = {name: texts for name, texts in found.items() if texts}
    assert unmarked == {"audit.html": ["NDJSON"]}


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_service_reads_the_compiled_catalogue(language: str) -> None:
    message = next(m for m in messages_of(language) if isinstance(m.id, str))

    assert translations_of(language).gettext(str(message.id)) == message.string
