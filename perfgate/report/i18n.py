"""The words of a report in the reader's language: gettext catalogues, one a domain, English in the code.

A renderer opens `speaking(language)` at its border; whatever runs inside finds its words by `gettext`.
What the gate wrote into a result is English data: `said` translates the sentences of the phrasebook and
hands on all other text as `Untranslated`, which a page marks as English.
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
_DEPTH = 4


class Untranslated(str):
    """Text that stays English in a report of another language."""

    __slots__ = ()


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
    """Everything said inside is in this language."""
    token = _LANGUAGE.set(language)
    try:
        yield
    finally:
        _LANGUAGE.reset(token)


def language() -> str:
    """The language being spoken, as in HTML's `lang`."""
    return _LANGUAGE.get()


def gettext(message: str) -> str:
    """The message in the language being spoken."""
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


def translate(text: str) -> str:
    """A sentence of the gate in the language in use, or `Untranslated` where no phrase is known for it."""
    if not text or _LANGUAGE.get() == "en":
        return text
    return _translated(text, _DEPTH) or Untranslated(text)


def _translated(text: str, depth: int) -> str | None:
    from perfgate.report.phrases import match

    found = match(text)
    if found is None:
        return None
    phrase, parts, inner = found
    for name in inner if depth else ():
        parts[name] = _translated(parts[name], depth - 1) or parts[name]
    return gettext(phrase) % parts if parts else gettext(phrase)
