"""The message catalogues: extracts, merges and compiles them.

python tests/helpers/catalogues.py

It brings `perfgate/report/locale/*/LC_MESSAGES/*.po` up to date with the messages in the code, compiles each
to the `.mo` beside it, and lists what waits for a translation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

REPORT = Path(__file__).resolve().parents[2] / "perfgate" / "report"
LOCALES = REPORT / "locale"
_OPTIONS = {"newstyle_gettext": "true", "trimmed": "false", "trim_blocks": "true", "lstrip_blocks": "true"}
_NO_DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)
_KEYWORDS = {"_": None, "gettext": None, "N_": None, "ngettext": (1, 2)}


def sources(domain: str) -> Iterator[Path]:
    """The files whose messages belong to a domain: those of `report/value/` and `templates/value*` are the
    business case's."""
    for path in sorted((*REPORT.rglob("*.py"), *(REPORT / "templates").glob("*.j2"))):
        of_value = path.parent.name == "value" or path.name.startswith("value")
        if of_value is (domain == "value") and path.name != "i18n.py":
            yield path


def messages(domain: str) -> dict[str | tuple[str, ...], None]:
    """Every message of a domain as the code has it, in the order of the code."""
    found: dict[str | tuple[str, ...], None] = {}
    for path in sources(domain):
        method = "python" if path.suffix == ".py" else "jinja2.ext:babel_extract"
        for _, message, _, _ in extract_from_file(method, path, _KEYWORDS, options=_OPTIONS):
            found[tuple(message) if isinstance(message, (tuple, list)) else message] = None
    return found


def catalogues(domain: str) -> list[Path]:
    """The `.po` files of a domain, one a language."""
    return sorted(LOCALES.glob(f"*/LC_MESSAGES/{domain}.po"))


def read(path: Path) -> Catalog:
    """A `.po` file."""
    with path.open("rb") as stream:
        return read_po(stream, locale=path.parent.parent.name)


def compiled(catalogue: Catalog) -> bytes:
    """The bytes of a `.mo` file, without the date of this day."""
    catalogue.creation_date = catalogue.revision_date = _NO_DAY
    sink = io.BytesIO()
    write_mo(sink, catalogue)
    return sink.getvalue()


_HEADER = """msgid ""
msgstr ""
"Language: {language}\\n"
"Plural-Forms: {plural}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""


def update(path: Path, domain: str) -> list[str]:
    """Bring a `.po` file up to date and compile it; returns the messages without a translation."""
    old = read(path)
    new = Catalog(locale=old.locale)
    for message in messages(domain):
        before = old.get(message[0] if isinstance(message, tuple) else message)
        new.add(message, before.string if before else None)
    sink = io.BytesIO()
    write_po(sink, new, width=100, omit_header=True, sort_output=True, no_location=True)
    # A header without dates and names: the same messages make the same file.
    header = _HEADER.format(language=old.locale, plural=new.plural_forms)
    path.write_text(header + sink.getvalue().decode(), encoding="utf-8")
    path.with_suffix(".mo").write_bytes(compiled(read(path)))
    return [str(one.id) for one in new if one.id and not translated(one)]


def translated(one: Message) -> bool:
    """Whether a message says something in the catalogue's language."""
    strings = one.string if isinstance(one.string, (tuple, list)) else (one.string,)
    return bool(strings) and all(strings) and not one.fuzzy


if __name__ == "__main__":
    for name in ("report", "value"):
        for po in catalogues(name):
            for waiting in update(po, name):
                print(f"{po.relative_to(LOCALES)}: {waiting}")
