"""Updates the catalogues in `userapi/translations/`: `python -m tests.support.catalogues [NEW…]`.

Each text that code or a template marks enters every catalogue; texts that are no longer used leave
it. `NEW` are languages to add, such as `fr` or `pt_BR`.
"""

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from userapi.languages import DOMAIN, LANGUAGES, SOURCE_LANGUAGE, TRANSLATIONS

SOURCE = TRANSLATIONS.parent
TEMPLATES = ("**/templates/**.html", "**/templates/**.txt")
KEYWORDS = {**DEFAULT_KEYWORDS, "lazy_gettext": None}
LINE_LENGTH = 100
PROJECT = "User Management Service"
TRANSLATED = tuple(language for language in LANGUAGES if language != SOURCE_LANGUAGE)


def extracted() -> Catalog:
    """Return a catalogue without translations: every text that code or a template marks."""
    catalogue = Catalog(project=PROJECT, domain=DOMAIN, fuzzy=False)
    methods = [("**.py", "python"), *((pattern, "jinja2") for pattern in TEMPLATES)]
    options = {pattern: {"trimmed": "true", "silent": "false"} for pattern in TEMPLATES}
    for file, _line, text, comments, context in extract_from_dir(
        SOURCE, methods, options, keywords=KEYWORDS, comment_tags=["Translators:"]
    ):
        # Without line numbers, a change of another line of the file does not change the catalogue.
        catalogue.add(text, locations=[(file, 0)], auto_comments=comments, context=context)
    return catalogue


def po_file(language: str) -> Path:
    """Return the catalogue that translators edit."""
    return TRANSLATIONS / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def mo_file(language: str) -> Path:
    """Return the compiled catalogue that the service reads."""
    return po_file(language).with_suffix(".mo")


def catalogue_of(language: str) -> Catalog:
    """Return the catalogue of a language; an empty one for a new language."""
    file = po_file(language)
    if not file.exists():
        header = f"# Texts of the {PROJECT}."
        return Catalog(language, domain=DOMAIN, project=PROJECT, header_comment=header, fuzzy=False)
    with file.open("rb") as stream:
        return read_po(stream, locale=language, domain=DOMAIN)


def updated(language: str, texts: Catalog) -> tuple[bytes, bytes]:
    """Return the content of both files of a language, with exactly these texts."""
    catalogue = catalogue_of(language)
    catalogue.update(texts, no_fuzzy_matching=True, update_creation_date=False)
    po, mo = BytesIO(), BytesIO()
    write_po(
        po,
        catalogue,
        width=LINE_LENGTH,
        sort_by_file=True,
        ignore_obsolete=True,
        include_lineno=False,
    )
    write_mo(mo, catalogue)
    return po.getvalue(), mo.getvalue()


def main(new: Sequence[str]) -> None:
    """Update all catalogues, and create those of new languages."""
    texts = extracted()
    for language in sorted({*TRANSLATED, *new}):
        po, mo = updated(language, texts)
        po_file(language).parent.mkdir(parents=True, exist_ok=True)
        po_file(language).write_bytes(po)
        mo_file(language).write_bytes(mo)
        missing = sum(1 for message in catalogue_of(language) if message.id and not message.string)
        print(f"{po_file(language)}: {len(texts)} texts, {missing} to translate")


if __name__ == "__main__":
    main(sys.argv[1:])
