"""Updates the catalogues in `userapi/translations/`: `python -m tests.support.catalogues [NEW…]`.

Each text that code or a template marks enters every catalogue; texts that are no longer used leave
it. `NEW` are languages to add, such as `fr` or `pt_BR`.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from userapi.languages import DOMAIN, LANGUAGES, SOURCE_LANGUAGE, TRANSLATIONS

SOURCE = TRANSLATIONS.parent
# What people can be told on pages: the schemas, and the subjects whose services the console calls.
SUBJECTS = [
    SOURCE / "api" / "schemas",
    *(SOURCE / name for name in ("accounts", "authentication", "console", "factors", "passwords")),
    *(SOURCE / name for name in ("machines", "roles", "sessions")),
]
# OAuth clients read its errors, which are not for people.
FOR_PROGRAMS = [SOURCE / "machines" / "client_tokens.py"]
TEMPLATES = ("**/templates/**.html", "**/templates/**.txt")
# A text for people, other than the messages of exceptions within the service.
SENTENCE = re.compile(r"(?!SECRET_KEY)[A-Z].*\.|sep=.*\.", re.DOTALL)
LINE_LENGTH = 100
PROJECT = "User Management Service"
TRANSLATED = tuple(language for language in LANGUAGES if language != SOURCE_LANGUAGE)


def extracted() -> Catalog:
    """Return a catalogue without translations: every text that code or a template marks."""
    catalogue = Catalog(project=PROJECT, domain=DOMAIN, fuzzy=False)
    methods = [("**.py", "python"), *((pattern, "jinja2") for pattern in TEMPLATES)]
    options = {pattern: {"trimmed": "true", "silent": "false"} for pattern in TEMPLATES}
    for file, _line, text, comments, context in extract_from_dir(
        SOURCE, methods, options, comment_tags=["Translators:"]
    ):
        # Without line numbers, a change of another line of the file does not change the catalogue.
        catalogue.add(text, locations=[(file, 0)], auto_comments=comments, context=context)
    for path in sorted(SOURCE.rglob("*.py")):
        for text in _error_texts(path):
            catalogue.add(text, locations=[(path.relative_to(SOURCE).as_posix(), 0)])
    return catalogue


def _error_texts(path: Path) -> Iterator[str]:
    """Yield the texts of errors, which the API sends in English and the console translates.

    They are the titles and details of errors, the messages of validators and the descriptions of
    permissions. A text with a limit in it gets the placeholder `number`.
    """
    is_for_people = path not in FOR_PROGRAMS and any(place in path.parents for place in SUBJECTS)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="title")], value=text)
                | ast.Call(func=ast.Name(id="CodedMessage"), args=[text, *_])
                | ast.Call(func=ast.Name(id="FieldError" | "PolicyViolation"), args=[_, text, *_])
                | ast.Call(func=ast.Name(id="invalid_field"), args=[_, text, *_])
            ):
                yield from _text_of(text)
            case ast.AnnAssign(target=ast.Name(id="DESCRIPTIONS"), value=ast.Dict(values=texts)):
                for text in texts:
                    yield from _text_of(text)
            case (
                ast.Assign(targets=[ast.Name(id="message")], value=text)
                | ast.Raise(exc=ast.Call(func=ast.Name(), args=[text]))
            ) if is_for_people:
                yield from (found for found in _text_of(text) if SENTENCE.fullmatch(found))


def _text_of(node: ast.expr) -> Iterator[str]:
    match node:
        # Texts with the name of a command are for operators.
        case ast.Constant(value=str(text)) if "`flask" not in text:
            yield text
        case ast.JoinedStr(values=parts):
            values = [part for part in parts if isinstance(part, ast.FormattedValue)]
            texts = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
            is_limit = len(values) == 1 and re.search("max|min", ast.unparse(values[0]), re.I)
            if is_limit and not re.search(r"\d", "".join(texts)):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "%(number)s"
                    for part in parts
                )


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
