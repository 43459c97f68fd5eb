"""The words of a report in the reader's language: gettext catalogues, one a domain, English in the code.

A renderer opens `use_language(language)` at its border; whatever runs inside finds its words by `gettext`.
What the gate wrote into a result is English data: `perfgate.report.phrases` translates that.
"""

from __future__ import annotations

import contextlib
import functools
import gettext as _gettext
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

LANGUAGES = ("en", "zh-CN")
DOMAINS = ("report", "value")
_LOCALES = Path(__file__).parent / "locale"
_LANGUAGE: ContextVar[str] = ContextVar("perfgate.report.language", default="en")


@functools.cache
def translations(language: str) -> _gettext.NullTranslations:
    """All domains' words in one of `LANGUAGES`; a word that no catalogue has stays English."""
    joined = _gettext.NullTranslations()
    for domain in DOMAINS:
        found = _gettext.translation(domain, _LOCALES, [language.replace("-", "_")], fallback=True)
        joined.add_fallback(found)
    return joined


@contextlib.contextmanager
def use_language(language: str) -> Iterator[None]:
    """Everything inside is in this language."""
    token = _LANGUAGE.set(language)
    try:
        yield
    finally:
        _LANGUAGE.reset(token)


def language() -> str:
    """The language in use, as in HTML's `lang`."""
    return _LANGUAGE.get()


def gettext(message: str) -> str:
    """The message in the language in use."""
    spoken = _LANGUAGE.get()
    # English is what the code says; and the empty message is where a catalogue keeps its header.
    return message if spoken == "en" or not message else translations(spoken).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The message in the form that a count asks for."""
    spoken = _LANGUAGE.get()
    if spoken == "en":
        return one if count == 1 else many
    return translations(spoken).ngettext(one, many, count)


def N_(message: str) -> str:
    """Marks a message to be extracted; it is translated where it is shown."""
    return message
